"""Makes the cluster match the desired manifests, sending only what differs from what was last applied."""

import hashlib
import json
import secrets
import time
from base64 import b64encode
from collections.abc import Iterable

from serin_operator.act.client import ApiError, Client
from serin_operator.api import ANNOTATION_ROUTE, LABEL_COMPONENT
from serin_operator.build.owner import SERVER, Existing, Key, Manifest, Owner

# No event tells when somebody deletes the key that signs prediction ids, since Serin may not read Secrets. A pass
# comes at least every five minutes.
KEY_CHECK_SECONDS = 240.0


class Applier:
    """Remembers per object what was applied last and the version that came of it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._applied: dict[Key, tuple[str, int]] = {}
        self._keys_seen: dict[Key, float] = {}  # when each Secret was last known to be there

    async def sync(self, owner: Owner, manifests: Iterable[Manifest], existing: Iterable[Existing]) -> None:
        """Applies what is new or differs, in order, then deletes what is no longer wanted.

        One object that the API server refuses does not keep the others back, a route least of all; but nothing is
        deleted then. Raises the first refusal.
        """
        there = {item.key: item for item in existing}
        wanted = set()
        refusals = []
        for manifest in manifests:
            key = (manifest["kind"], owner.namespace, manifest["metadata"]["name"])
            wanted.add(key)
            try:
                await self._apply(owner, manifest, key, there.get(key))
            except ApiError as error:
                refusals.append(ApiError(error.code, f"{key[0]} {key[2]}: {error.message}"))
        if refusals:
            raise refusals[0]
        for key, item in there.items():
            if key not in wanted and item.owner == owner.uid:
                await self._client.delete(*key)
                self._applied.pop(key, None)

    def forget(self, namespace: str, owner: str) -> None:
        """Drops what is remembered of a ModelDeployment that is gone."""
        gone = [
            key
            for key in (*self._applied, *self._keys_seen)
            if key[1] == namespace and (key[2] == owner or key[2].startswith(f"{owner}-"))
        ]
        for key in gone:
            self._applied.pop(key, None)
            self._keys_seen.pop(key, None)

    async def _apply(self, owner: Owner, manifest: Manifest, key: Key, existing: Existing | None) -> None:
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        applied = self._applied.get(key)
        stands = existing and applied and applied[0] == digest and existing.stands_at(applied[1])
        if manifest["kind"] == "Deployment" and manifest["metadata"]["labels"][LABEL_COMPONENT] == SERVER:
            await self._ensure_prediction_key(owner, again=not stands)
        if stands:
            return
        # What is not known to be Serin's is not taken from whoever has it: a conflict is told instead.
        ours = applied is not None or (existing is not None and existing.owner == owner.uid)
        answer = await self._client.apply(manifest, force=ours)
        self._applied[key] = (digest, Existing.of(answer, manifest["kind"]).version)

    async def _ensure_prediction_key(self, owner: Owner, *, again: bool) -> None:
        """Creates the key that signs prediction ids where there is none; Serin never reads it and never changes it.

        again: also when it was there a moment ago.
        """
        key = ("Secret", owner.namespace, owner.prediction_key)
        seen = self._keys_seen.get(key)
        if not again and seen is not None and time.monotonic() - seen < KEY_CHECK_SECONDS:
            return
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": owner.metadata(owner.prediction_key, owner.labels(SERVER)),
            "type": "Opaque",
            "data": {"key": b64encode(secrets.token_bytes(32)).decode()},
        }
        try:
            await self._client.create(secret)
        except ApiError as error:
            if error.code != 409:
                raise
        self._keys_seen[key] = time.monotonic()


async def nudge_routers(
    client: Client, namespace: str, pods: Iterable[tuple[str, str | None]], version: str, again: int | None
) -> None:
    """Marks the router pods (name, mark so far) with the version of their files.

    The kubelet then syncs the pod, and with it the mounted ConfigMap, at once instead of within a minute. Where it
    did so before it saw the new ConfigMap, a further mark with another number `again` makes it look once more.
    """
    for name, mark in pods:
        wanted = version if again is None else f"{version}.{again}"
        if mark == wanted or (again is None and mark is not None and mark.partition(".")[0] == version):
            continue
        try:
            await client.annotate("Pod", namespace, name, {ANNOTATION_ROUTE: wanted})
        except ApiError as error:
            if error.code != 404:  # the pod has just gone
                raise
