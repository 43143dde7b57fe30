"""Makes the cluster match the desired manifests, sending only what differs from what was last applied.

Every write to an object that is there names the version that it was prepared for. Together with the mark that an
operator leaves on all objects when it takes over, this keeps a write of its predecessor from landing late.
"""

import hashlib
import json
import secrets
import time
from base64 import b64encode
from collections.abc import Iterable

from serin_operator.act.client import ApiError, Client
from serin_operator.api import ANNOTATION_OPERATOR, ANNOTATION_ROUTE, LABEL_COMPONENT, LABEL_OWNER
from serin_operator.build.owner import SERVER, Existing, Key, Manifest, Owner

# No event tells when somebody deletes the key that signs prediction ids, since Serin may not read Secrets. A pass
# comes at least every five minutes.
KEY_CHECK_SECONDS = 240.0


# Kinds that only people and other controllers change besides Serin: whoever did shall know that it did not last.
_ROUTES = {"ConfigMap", "HTTPRoute", "GRPCRoute", "VirtualService", "DestinationRule"}


class Applier:
    """Remembers per object what was applied last and what came of it. `operator` is the mark that it leaves."""

    def __init__(self, client: Client, operator: str) -> None:
        self._client = client
        self._operator = operator
        self._applied: dict[Key, tuple[str, Existing]] = {}
        self._keys_seen: dict[Key, float] = {}  # when each Secret was last known to be there

    async def sync(self, owner: Owner, manifests: Iterable[Manifest], existing: Iterable[Existing]) -> list[Key]:
        """Applies what is new or differs, in order, then deletes what is no longer wanted.

        Returns the routes that somebody else had changed. One object that the API server refuses does not keep the
        others back, a route least of all; but nothing is deleted then. Raises the first refusal.
        """
        there = {item.key: item for item in existing}
        wanted = set()
        refusals, mended = [], []
        for manifest in manifests:
            key = (manifest["kind"], owner.namespace, manifest["metadata"]["name"])
            wanted.add(key)
            try:
                if await self._apply(owner, manifest, key, there.get(key)) and key[0] in _ROUTES:
                    mended.append(key)
            except ApiError as error:
                refusals.append(ApiError(error.code, f"{key[0]} {key[2]}: {error.message}"))
        if refusals:
            raise refusals[0]
        for key, item in there.items():
            if key not in wanted and item.owner == owner.uid:
                # A pod's version changes with its status, which the cache does not keep: its uid is enough.
                version = self._newest_version(key, item)
                await self._client.delete(*key, uid=item.uid, **({"resourceVersion": str(version)} if version else {}))
                self._applied.pop(key, None)
        return mended

    def forget_all(self) -> None:
        """Drops everything that is remembered: another operator may write from now on."""
        self._applied.clear()
        self._keys_seen.clear()

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

    async def _apply(self, owner: Owner, manifest: Manifest, key: Key, existing: Existing | None) -> bool:
        """Returns whether somebody else had changed what was applied before, and is still wanted."""
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        applied = self._applied_for(owner, key)
        stands = existing and applied and applied[0] == digest and existing.stands_at(applied[1].version)
        if manifest["kind"] == "Deployment" and manifest["metadata"]["labels"][LABEL_COMPONENT] == SERVER:
            await self._ensure_prediction_key(owner, again=not stands)
        if stands:
            return False
        if existing is None and applied is None:
            await self._keep_off_another_s(owner, key)
        # What is not known to be Serin's is not taken from whoever has it: a conflict is told instead.
        ours = applied is not None or (existing is not None and existing.owner == owner.uid)
        answer = await self._apply_at(manifest, key, self._newest_version(key, existing), force=ours)
        self._applied[key] = (digest, Existing.of(answer, manifest["kind"]))
        return bool(existing and applied and applied[0] == digest)

    def _applied_for(self, owner: Owner, key: Key) -> tuple[str, Existing] | None:
        """What was applied last for this owner: another ModelDeployment may have had an object of this name."""
        applied = self._applied.get(key)
        return applied if applied and applied[1].owner == owner.uid else None

    async def _keep_off_another_s(self, owner: Owner, key: Key) -> None:
        """The API server sees no conflict between two ModelDeployments, since Serin manages the fields of both."""
        held = await self._client.read(*key)
        whose = held["metadata"].get("labels", {}).get(LABEL_OWNER) if held else None
        if whose not in (None, owner.name):
            raise ApiError(409, f"the ModelDeployment {whose} has it")

    async def _apply_at(self, manifest: Manifest, key: Key, version: int, *, force: bool) -> Manifest:
        """Applies to an object at this version, or at the one that it has where the watch cache lags behind.

        A route must not wait for an event. Whoever may act no longer does not come as far as the second try.
        """
        try:
            return await self._client.apply(self._marked(manifest, version), force=force)
        except ApiError as error:
            held = await self._client.read(*key) if error.code == 409 and version else None
            if held is None or int(held["metadata"]["resourceVersion"]) == version:
                raise
        return await self._client.apply(self._marked(manifest, int(held["metadata"]["resourceVersion"])), force=force)

    def _newest_version(self, key: Key, existing: Existing | None) -> int:
        """The version of an object that is there; the watch cache may lag behind what was applied a moment ago.

        0 where the cache does not tell: what it was when it was applied says nothing of what others did since.
        """
        if existing is None or not existing.resource_version:
            return 0
        applied = self._applied.get(key)
        return max(existing.resource_version, applied[1].resource_version if applied else 0)

    def _marked(self, manifest: Manifest, version: int) -> Manifest:
        """The manifest with this operator's mark, for an object at this version."""
        metadata = dict(manifest["metadata"])
        metadata["annotations"] = {**metadata.get("annotations", {}), ANNOTATION_OPERATOR: self._operator}
        if version:
            metadata["resourceVersion"] = str(version)
        return {**manifest, "metadata": metadata}

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
