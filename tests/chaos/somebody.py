"""Somebody else who writes to the API server, as fast as no kubectl does: over one connection."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from tests.chaos.node import Node
from tests.e2e.cluster import Manifest

_MERGE = {"Content-Type": "application/merge-patch+json"}
_TIMEOUT_SECONDS = 20.0
# Not there any more, or others have written it too often meanwhile.
_MISSED = (http.client.NOT_FOUND, http.client.CONFLICT)


@dataclass(frozen=True)
class Somebody:
    """A field manager of its own, with all rights in a namespace."""

    connection: http.client.HTTPSConnection
    namespace: str

    @classmethod
    @contextmanager
    def of(cls, node: Node, namespace: str) -> Iterator["Somebody"]:
        """At the API server of a local cluster."""
        pki, port = node.layout.pki, int(node.layout.port_file.read_text())
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=_TIMEOUT_SECONDS)
        with closing(connection):
            yield cls(connection, namespace)

    def read(self, version: str, name: str) -> Manifest:
        """An object, by its API's version and "plural/name"."""
        status, found = self._call("GET", version, name, None)
        assert status == http.client.OK, found
        return found

    def patch(self, version: str, name: str, change: Manifest) -> None:
        """Merge a change into an object, if it is there."""
        status, answer = self._call("PATCH", version, f"{name}?fieldManager=somebody", change)
        assert status in (http.client.OK, *_MISSED), answer

    def _call(self, verb: str, version: str, path: str, body: Manifest | None) -> tuple[int, Manifest]:
        root = "api" if version == "v1" else "apis"
        text = None if body is None else json.dumps(body)
        self.connection.request(verb, f"/{root}/{version}/namespaces/{self.namespace}/{path}", text, _MERGE)
        response = self.connection.getresponse()
        answer: Manifest = json.loads(response.read())
        return response.status, answer
