"""Makes the cluster match the desired manifests, sending only what differs from what was last applied.

Every write to an object that is there names the version that it was prepared for. Together with the mark that an
operator leaves on all objects when it takes over, this keeps a write of its predecessor from landing late.
"""

import hashlib
import json
import secrets
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from serin_operator.act.client import ApiError, Client
from serin_operator.act.refusals import noted
from serin_operator.api import ANNOTATION_OPERATOR, ANNOTATION_ROUTE, KIND, LABEL_COMPONENT
from serin_operator.build.owner import SERVER, Existing, Key, Manifest, Owner

# No event tells when somebody deletes the key that signs prediction ids, since Serin may not read Secrets. A pass
# comes at least every five minutes.
KEY_CHECK_SECONDS = 240.0


# What is Serin's as a whole, with what somebody else puts into it. An apply takes away only what was applied before.
_WHOLE = {"HTTPRoute", "GRPCRoute", "VirtualService", "DestinationRule"}
# Kinds that only people and other controllers change besides Serin: whoever did shall know that it did not last. The
# same goes for where a Service leads, see `_routed`.
_ROUTES = {"ConfigMap", *_WHOLE}


@dataclass(frozen=True, slots=True)
class Synced:
    """What came of it. mended: routes that others had changed. refusals: what the API server did not take."""

    mended: list[Key] = field(default_factory=list)
    refusals: dict[Key, ApiError] = field(default_factory=dict)

    @contextmanager
    def refused(self, key: Key) -> Iterator[None]:
        """Notes it when this object is refused."""
        refusals: list[ApiError] = []
        with noted(refusals, f"{key[0]} {key[2]}"):
            yield
        self.refusals.update((key, refusal) for refusal in refusals)


class Applier:
    """Remembers per object what was applied last and what came of it. `operator` is the mark that it leaves."""

    def __init__(self, client: Client, operator: str) -> None:
        self._client = client
        self._operator = operator
        self._applied: dict[Key, tuple[str, Existing]] = {}
        self._keys_seen: dict[Key, float] = {}  # when each Secret was last known to be there

    async def sync(self, owner: Owner, manifests: Iterable[Manifest], existing: Iterable[Existing]) -> Synced:
        """Applies what is new or differs, in order, then deletes what is no longer wanted.

        An object that the API server refuses keeps no other back, a route least of all; and what is deleted may make
        the room that it needs. But nothing is deleted to which a refused route or Service may still lead requests:
        one that is there and Serin's.
        """
        there = {item.key: item for item in existing}
        wanted = set()
        done = Synced()
        for manifest in manifests:
            key = (manifest["kind"], owner.namespace, manifest["metadata"]["name"])
            wanted.add(key)
            with done.refused(key):
                if await self._apply(owner, manifest, key, there.get(key)) and _routed(manifest, there[key]):
                    done.mended.append(key)
        if any(key[0] in {"Service", *_ROUTES} and self._is_ours(owner, key, there.get(key)) for key in done.refusals):
            return done
        for key, item in there.items():
            if key not in wanted and item.owner == owner.uid:
                with done.refused(key):
                    await self._delete(key, item)
        return done

    async def _delete(self, key: Key, item: Existing) -> None:
        # A pod's version changes with its status, which the cache does not keep: its uid is enough.
        version = self._newest_version(key, item)
        await self._client.delete(*key, uid=item.uid, **({"resourceVersion": str(version)} if version else {}))
        self._applied.pop(key, None)

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
        stands = existing and applied and applied[0] == digest and existing.stands_as(applied[1])
        if manifest["kind"] == "Deployment" and manifest["metadata"]["labels"][LABEL_COMPONENT] == SERVER:
            await self._ensure_prediction_key(owner, again=not stands)
        if stands:
            return False
        if existing is None and applied is None:
            await self._refuse_what_another_has(owner, key)
        # What is not known to be Serin's is not taken from whoever has it: a conflict is told instead.
        ours = self._is_ours(owner, key, existing)
        answer = await self._apply_at(manifest, key, self._newest_version(key, existing), force=ours)
        added = _added(manifest["spec"], answer["spec"]) if ours and manifest["kind"] in _WHOLE else []
        if added:
            answer = await self._client.edit(*key, _without(added, answer))
            # What a webhook puts into every write is there again.
            added = [path for path in added if path not in _added(manifest["spec"], answer["spec"])]
        self._applied[key] = (digest, Existing.of(answer, manifest["kind"]))
        return bool(existing and (added or (applied and applied[0] == digest)))

    def _applied_for(self, owner: Owner, key: Key) -> tuple[str, Existing] | None:
        """What was applied last for this owner: another ModelDeployment may have had an object of this name."""
        applied = self._applied.get(key)
        return applied if applied and applied[1].owner == owner.uid else None

    def _is_ours(self, owner: Owner, key: Key, existing: Existing | None) -> bool:
        """Whether it is known to be this owner's, be it in the cache or not yet."""
        return self._applied_for(owner, key) is not None or (existing is not None and existing.owner == owner.uid)

    async def _refuse_what_another_has(self, owner: Owner, key: Key) -> None:
        """The API server sees no conflict between two ModelDeployments, since Serin manages the fields of both.

        A label says nothing: one that was deleted without its objects has left them. And whoever had this owner's name
        before is gone.
        """
        held = await self._client.read(*key) or {"metadata": {}}
        for reference in held["metadata"].get("ownerReferences", []):
            if reference.get("controller") and reference["kind"] == KIND and reference["name"] != owner.name:
                raise ApiError(409, f"the ModelDeployment {reference['name']} has it")

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


def _added(wanted: Mapping[str, Any], found: Mapping[str, Any], path: str = "/spec") -> list[str]:
    """Where fields are that were not applied. A list was, as a whole."""
    paths = []
    for name, value in found.items():
        if name not in wanted:
            paths.append(f"{path}/{name}")
        elif isinstance(value, Mapping):
            paths += _added(wanted[name], value, f"{path}/{name}")
    return paths


def _without(paths: Iterable[str], held: Manifest) -> list[dict[str, Any]]:
    """A JSON patch that takes these away from the object as it was read, and from no later one."""
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": held["metadata"]["resourceVersion"]}
    return [version, *({"op": "remove", "path": path} for path in paths)]


def _routed(manifest: Manifest, changed: Existing) -> bool:
    """Whether the change of this object was one of what is routed where. Others write to Services, too."""
    if changed.kind == "Service":
        return bool(changed.selector != manifest["spec"]["selector"])
    return changed.kind in _ROUTES


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
