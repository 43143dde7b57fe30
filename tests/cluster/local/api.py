"""The few calls to the API server that bringing a cluster up takes."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .layout import Layout


@dataclass(frozen=True)
class Api:
    """The API server as its administrator reaches it from the machine."""

    layout: Layout

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.layout.port_file.read_text()}"

    def get(self, path: str) -> Any:
        """Return the object at a path, or None where there is none."""
        try:
            return json.loads(self._request("GET", path))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def apply(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Create the object at a path or bring it to this state (server-side apply)."""
        self._request(
            "PATCH",
            f"{path}?fieldManager=serin-cluster&force=true",
            json.dumps(manifest).encode(),
            {"Content-Type": "application/apply-patch+yaml"},
        )

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        pki = self.layout.pki
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        request = urllib.request.Request(self.server + path, body, dict(headers or {}), method=method)
        # A proxy that the machine's environment names is for the world outside, never for this address.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=5) as answer:
            content: bytes = answer.read()
            return content
