"""One task per ModelDeployment: observe → decide → write the status → apply → announce, then sleep until woken.

The status is written before anything that follows from it is done, under the resourceVersion that was read. A pass
that is killed anywhere is finished by the next one from the cluster's state and the status alone.

Evidence grows with every scrape. It is a function of the pods' cumulative counters, so it need not be written every
time: a restarted operator counts what it did not write as one larger block.

Of several operators one leads and runs passes; the others only keep their watch caches. What a cache holds can be older
than what the last leader wrote, so a memory begins with what the API server holds.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import aiohttp
from prometheus_client import Counter, Gauge, Histogram

from serin_operator.act.announce import announce, announce_failing_passes, announce_mended, log_decisions
from serin_operator.act.apply import Applier, nudge_routers
from serin_operator.act.client import ApiError, Client, NotLeadingError
from serin_operator.act.refusals import RefusedError, noted
from serin_operator.act.weights import Weigher
from serin_operator.api import ANNOTATION_ABORT, ANNOTATION_PROMOTE, ANNOTATION_RETRY, KIND, LABEL_OWNER
from serin_operator.api.spec import RouterType, Spec, parse_spec
from serin_operator.api.status import Status, dump_status, parse_status
from serin_operator.build.manifests import manifests
from serin_operator.build.own_route import weights
from serin_operator.build.owner import RESOLVER, Key, Manifest, Owner
from serin_operator.build.router import files_version
from serin_operator.decide.observed import Defaults, DriftReading, Observed, Snapshot
from serin_operator.decide.revisions import pinned, resolver_name
from serin_operator.decide.roles import arms, route_of, router_of, running
from serin_operator.decide.rollout import Decision, decide, wants
from serin_operator.memory import EVIDENCE_WRITE_SECONDS, Memory, version_of, worth_writing
from serin_operator.observe.cache import Cache, Place
from serin_operator.observe.courier import carry
from serin_operator.observe.drift import DriftLedger, look_for_drift
from serin_operator.observe.pods import Pod, resolution, workload
from serin_operator.observe.routing import Sight, verify
from serin_operator.observe.snapshot import look
from serin_operator.settings import Settings

_LOGGER = logging.getLogger("serin.loop")
_PASSES = Counter("serin_operator_passes_total", "Passes over one ModelDeployment", ["result"])
_SECONDS = Histogram("serin_operator_pass_seconds", "Duration of one pass")
_WATCHED = Gauge("serin_operator_model_deployments", "ModelDeployments under care")

RESYNC_SECONDS = 300.0
CACHE_LAG_SECONDS = 5.0
CACHE_LAG_LIMIT_SECONDS = 10.0
LAST_WORD_SECONDS = 1.0
NUDGE_SECONDS = 2.0
PASS_LIMIT_SECONDS = 60.0
_FAILURES_UNTIL_TOLD = 3
_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0
_AT_ONCE = 0.05
_REFUSED_RETRY = 1.0  # no sooner, though a route that is not seen to serve yet is looked at more often


class Loop:
    """Runs the passes between `lead` and `rest`. `wake` it on every event; it looks again by itself when it is time.

    operator: the name that it leaves on all that it writes, no other process's.
    """

    def __init__(
        self, settings: Settings, client: Client, session: aiohttp.ClientSession, cache: Cache, operator: str
    ) -> None:
        self._settings = settings
        self._client = client
        self._session = session
        self._cache = cache
        self._operator = operator
        self._leading = False
        self._told: set[Place] = set()  # of whom, while it stood by; nobody is told before all caches are filled
        self._applier = Applier(client, operator)
        self._weigher = Weigher(client)
        self._memories: dict[Place, Memory] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._wakes: dict[Place, asyncio.Event] = {}
        self._running_since: dict[Place, float] = {}

    def wake(self, place: Place) -> None:
        """Something about this ModelDeployment has changed."""
        if not self._leading:
            self._told.add(place)
            return
        if place not in self._tasks:
            self._wakes[place] = asyncio.Event()
            self._tasks[place] = asyncio.create_task(self._care(place), name=f"care for {place[0]}/{place[1]}")
            _WATCHED.set(len(self._tasks))
        self._wakes[place].set()

    def lead(self) -> None:
        """From now on this operator acts: on what it was told of before, and on what it will be told of."""
        self._leading = True
        told, self._told = self._told, set()
        for place in told:
            self.wake(place)

    async def rest(self, patience: float = 0.0) -> None:
        """No pass begins from now on, and one under way is cut off after so many seconds. What it knew may get old."""
        self._leading = False
        for wake in self._wakes.values():
            wake.set()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._told |= self._tasks.keys()
        self._tasks.clear()
        self._wakes.clear()
        self._memories.clear()
        self._applier.forget_all()
        self._weigher.forget_all()
        _WATCHED.set(0)

    def wake_one_or_all(self, place: Place | None) -> None:
        """Something about the routes of this ModelDeployment, or of all, has changed."""
        for each in self._cache.places() if place is None else [place]:
            if self._cache.resource(each) is not None:
                self.wake(each)

    async def exorcise(self) -> None:
        """Finds what the watches missed the deletion of, from time to time, for as long as it runs.

        A watch that has to start over does not tell what was deleted in between, and Kopf keeps it in its indexes.
        """
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            for kind in (KIND, "Pod", *self._cache.objects):
                try:
                    await self._exorcise(kind)
                except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                    _LOGGER.warning("listing %s failed: %s %s", kind, type(error).__name__, error)
                except Exception:  # a bug must not end the search, nor be hidden
                    _LOGGER.exception("listing %s failed", kind)

    async def _exorcise(self, kind: str) -> None:
        cached = self._cache.uids(kind)
        selector = "" if kind == KIND else LABEL_OWNER
        there = set()
        for namespace in self._settings.namespaces or (None,):
            there |= await self._client.uids(kind, namespace, selector)
        ghosts = cached.keys() - there - self._cache.ghosts
        self._cache.ghosts |= ghosts
        for place in {cached[uid] for uid in ghosts}:
            self.wake(place)

    def stuck(self) -> list[str]:
        """ModelDeployments whose pass runs longer than it ever may, or whose task has died."""
        now = time.monotonic()
        slow = [place for place, since in self._running_since.items() if now - since > 2 * PASS_LIMIT_SECONDS]
        dead = [place for place, task in self._tasks.items() if task.done()]
        return [f"{namespace}/{name}" for namespace, name in slow + dead]

    async def _care(self, place: Place) -> None:
        retry, failures = _FIRST_RETRY, 0
        while self._leading and self._cache.resource(place) is not None:
            self._wakes[place].clear()
            try:
                wait = await self._timed_pass(place)
                retry, failures = _FIRST_RETRY, 0
            except NotLeadingError as error:
                _LOGGER.warning("%s/%s: another operator may act by now: %s", *place, error)
                wait = LAST_WORD_SECONDS
            except ApiError as error:
                # 409: somebody wrote the resource since it was read, and the event of that is on its way.
                level = logging.DEBUG if error.code == 409 else logging.WARNING
                _LOGGER.log(level, "%s/%s: the API server says %s", *place, error)
                wait, retry, failures = retry, min(2 * retry, _LAST_RETRY), failures + 1
                what = "Nothing moves"
                if isinstance(error, RefusedError):
                    wait, what = min(wait, max(error.wait, _REFUSED_RETRY)), "All else goes on"
                await self._complain(place, failures, f"{what} until this is mended: the API server says {error}")
            except Exception as error:
                # One ModelDeployment's trouble must not end the care for the others; it is told and tried again.
                _LOGGER.exception("%s/%s: the pass failed", *place)
                wait, retry, failures = retry, min(2 * retry, _LAST_RETRY), failures + 1
                text = f"Nothing moves until this is mended: {type(error).__name__} {error}; see the operator's log"
                await self._complain(place, failures, text)
            try:
                await asyncio.wait_for(self._wakes[place].wait(), wait)
            except TimeoutError:
                continue
        if not self._leading:
            return
        self._memories.pop(place, None)
        self._applier.forget(*place)
        del self._tasks[place], self._wakes[place]
        _WATCHED.set(len(self._tasks))

    async def _complain(self, place: Place, failures: int, note: str) -> None:
        """Tells the resource's reader, once, that its passes fail one after the other."""
        resource = self._cache.resource(place)
        if failures == _FAILURES_UNTIL_TOLD and resource is not None:
            await announce_failing_passes(self._client, resource, note)

    async def _timed_pass(self, place: Place) -> float:
        self._running_since[place] = time.monotonic()
        try:
            with _SECONDS.time():
                async with asyncio.timeout(PASS_LIMIT_SECONDS):
                    wait = await self._pass(place)
        except BaseException:
            _PASSES.labels("failed").inc()
            raise
        finally:
            del self._running_since[place]
        _PASSES.labels("done").inc()
        return wait

    async def _pass(self, place: Place) -> float:
        resource = self._cache.resource(place)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            return RESYNC_SECONDS
        memory = await self._remember(place, resource)
        newest = memory.newest(resource) if memory is not None else None
        if memory is None or newest is None:
            return CACHE_LAG_SECONDS  # the watch cache has not seen yet what was written; its event wakes the loop
        resource, metadata = newest, newest["metadata"]
        if "deletionTimestamp" in metadata:
            return RESYNC_SECONDS
        spec = parse_spec(resource["spec"])
        pods = self._cache.pods_of(place)
        memory.unseen -= {pod.name for pod in pods}
        observed, binned = await self._observe(place, metadata, spec, memory, pods)
        if observed.router is not None:
            route = route_of(memory.status)
            memory.served = route if route is not None and observed.router.serves(route) else None
        before, now = memory.status, time.time()
        decision = decide(observed, now)
        after = replace(decision.status, operator=self._operator)
        await self._write(resource, memory, after, now)
        memory.binned = binned
        owner = Owner(*place, metadata["uid"])
        built = manifests(owner, spec, after, decision.resolve, self._settings.images)
        wanted = [manifest for manifest in built if self._cache.routes.writable(manifest["kind"], place[0])]
        mended: list[Key] = []
        refusals: list[ApiError] = []
        try:
            try:
                done = await self._applier.sync(owner, wanted, self._cache.objects_of(place))
                mended += done.mended
                refusals += done.refusals.values()
            finally:
                with noted(refusals, "weights of the route"):
                    mended += await self._weigh(owner, spec, after)
                with noted(refusals, "mark of the routers"):
                    await self._nudge(place, memory, wanted, pods, now)
                with noted(refusals, "failed resolver"):
                    await self._replace_failed_resolvers(place, pods)
        finally:  # the status says already that it is done, so no later pass would tell
            await announce_mended(self._client, resource, mended)
            await announce(self._client, resource, before, after)
        wait = self._wait(decision)
        refused = next((str(each) for each in refusals if each.lasts), "")
        memory.refused = refused
        if refused != memory.told:  # the next pass tells it, but not more often where its words change all the time
            due = memory.told_at + EVIDENCE_WRITE_SECONDS - now
            wait = min(wait, due)
            if not 0 < due <= EVIDENCE_WRITE_SECONDS:
                memory.told, memory.told_at, memory.written_at, wait = refused, now, 0.0, _AT_ONCE
        if refusals:
            raise RefusedError(refusals[0], wait)
        return wait

    async def _weigh(self, owner: Owner, spec: Spec, status: Status) -> list[Key]:
        """Edits the weights in a user's own route. Returns it if somebody else had changed them."""
        routing = status.routing
        if routing is None or RouterType.GATEWAY_API not in (routing.router, routing.next):
            return []
        wanted = weights(owner, spec, status)
        raw = self._cache.routes.get(wanted.key[0], wanted.key[1:]) if wanted else None
        if wanted is None or raw is None:
            return []
        return [wanted.key] if await self._weigher.give(wanted, raw) else []

    async def _remember(self, place: Place, resource: Mapping[str, Any]) -> Memory | None:
        """The memory of this very resource, None where it is gone and the cache does not know that yet.

        A status that this loop did not write, or does not know to have written, is the one that holds. Where the cache
        may lag behind, which it may at first and while its version is older than what was written, the API server is
        asked. An older status that it holds comes from a backup.
        """
        memory = self._memories.get(place)
        uid, version = resource["metadata"]["uid"], version_of(resource)
        if memory is not None and memory.uid == uid:
            lags = version < memory.resource_version
            waited = time.monotonic() - memory.since
            if not lags:
                return memory if resource.get("status", {}) == memory.stored else self._memorise(place, resource)
            if waited < CACHE_LAG_LIMIT_SECONDS:
                return memory
        held = await self._client.read(KIND, *place)
        if held is None or held["metadata"]["uid"] != uid:
            return None
        if memory is not None and memory.uid == uid and memory.stored == held.get("status", {}):
            memory.resource_version, memory.since, memory.held = version_of(held), time.monotonic(), held
            return memory
        unseen: frozenset[str] = frozenset()
        if not held.get("status", {}).keys().isdisjoint(("rollout", "watch")):
            unseen = await self._client.names("Pod", place[0], f"{LABEL_OWNER}={place[1]}")
        memory = self._memorise(place, held)
        memory.unseen, memory.held = unseen, held
        return memory

    def _memorise(self, place: Place, resource: Mapping[str, Any]) -> Memory:
        uid, stored = resource["metadata"]["uid"], resource.get("status", {})
        before = self._memories.get(place)
        memory = Memory(uid, parse_status(stored), stored, version_of(resource), time.monotonic())
        if before is not None and before.uid == uid:
            memory.unseen = before.unseen
        self._memories[place] = memory
        return memory

    async def _observe(
        self, place: Place, metadata: Mapping[str, Any], spec: Spec, memory: Memory, pods: list[Pod]
    ) -> tuple[Observed, DriftLedger | None]:
        status = memory.status
        wanted = wants(status, spec, memory.served, time.time())
        cache, owner = self._cache, Owner(*place, metadata["uid"])
        unmade = cache.unmade(place)
        why = {each.revision: unmade.get(owner.server(each.revision), "") for each in running(status)}
        revisions = {pod.revision for pod in pods if pod.revision} | why.keys()
        marks = metadata.get("annotations", {})
        unresolved = pinned(spec.model, status.resolved) is None
        drift, binned = None, memory.binned
        if wanted.snapshot:
            await self._carry(place, spec, memory, pods)
        sight = Sight(self._session, place, pods, spec, status, cache.routes, cache.selector(place), cache.leads(place))
        following = status.routing.next if status.routing else None
        if wanted.drift and status.stable is not None:
            drift, binned = await self._bins(place, spec, status.stable.revision, memory, pods)
        observed = Observed(
            name=place[1],
            generation=metadata["generation"],
            retry=marks.get(ANNOTATION_RETRY),
            promote=marks.get(ANNOTATION_PROMOTE),
            abort=marks.get(ANNOTATION_ABORT),
            spec=spec,
            status=status,
            defaults=Defaults(self._settings.images.server, self._settings.require_signature),
            workloads={revision: workload(pods, revision, why.get(revision, "")) for revision in revisions},
            router=await verify(router_of(status), sight) if wanted.router else None,
            next_router=await verify(following, sight) if following else None,
            snapshot=await self._snapshot(place, spec, memory, pods) if wanted.snapshot else None,
            resolution=resolution(pods, resolver_name(place[1], spec.model)) if unresolved else None,
            drift=drift,
            served=memory.served,
            refused=memory.refused,
        )
        return observed, binned

    async def _bins(
        self, place: Place, spec: Spec, revision: str, memory: Memory, pods: list[Pod]
    ) -> tuple[DriftReading, DriftLedger | None]:
        address = spec.analysis.prometheus or self._settings.prometheus
        return await look_for_drift(self._session, address, place, pods, revision, memory.binned, time.time())

    async def _carry(self, place: Place, spec: Spec, memory: Memory, pods: list[Pod]) -> None:
        """While the canary is a shadow, brings its servers the answers that theirs are compared with."""
        status = memory.status
        if status.stable is None or status.canary is None or status.rollout is None or not status.rollout.mirror:
            memory.carried = {}
            return
        both, window = (status.canary.revision, status.stable.revision), spec.analysis.label_window
        memory.carried = await carry(self._session, place[1], pods, both, window, memory.carried)

    async def _snapshot(self, place: Place, spec: Spec, memory: Memory, pods: list[Pod]) -> Snapshot:
        """What is counted. A pod that the watch cache does not show yet may be counted already: it is not gone."""
        address = spec.analysis.prometheus or self._settings.prometheus
        rollout, both = memory.status.rollout, arms(memory.status)
        shadow = rollout is not None and (spec.rollout.shadow is not None or rollout.mirror > 0)
        seen = await look(self._session, address, place, pods, spec.analysis, both, time.time(), shadow=shadow)
        return replace(seen, pods=seen.pods | memory.unseen)

    async def _write(self, resource: Mapping[str, Any], memory: Memory, status: Status, now: float) -> None:
        before = memory.status
        if status == before:
            return
        if worth_writing(before, status, now - memory.written_at):
            try:
                answer = await self._client.replace_status(resource, dump_status(status))
            except ApiError as error:
                if error.code == 409:  # there is a later version: waited for, then asked for
                    memory.resource_version, memory.since = version_of(resource) + 1, time.monotonic()
                raise
            memory.stored = answer["status"]
            memory.resource_version = int(answer["metadata"]["resourceVersion"])
            memory.since = time.monotonic()
            memory.written_at = now
        memory.status = status
        log_decisions(resource, before, status)

    async def _nudge(self, place: Place, memory: Memory, wanted: list[Manifest], pods: list[Pod], now: float) -> None:
        files = next((manifest for manifest in wanted if manifest["kind"] == "ConfigMap"), None)
        if files is None:
            return
        routers = [(pod.name, pod.route_mark) for pod in pods if pod.component == "router" and not pod.terminating]
        again = None
        if memory.served != route_of(memory.status) and not 0 <= now - memory.nudged_at < NUDGE_SECONDS:
            again = int(now)
        if again is not None or any(mark is None for _, mark in routers):
            memory.nudged_at = now
        await nudge_routers(self._client, place[0], routers, files_version(files), again)

    async def _replace_failed_resolvers(self, place: Place, pods: list[Pod]) -> None:
        """Deletes resolver pods that ended for good without an answer; the next pass makes a new one."""
        for pod in pods:
            if pod.component == RESOLVER and pod.failed and not pod.terminating:
                await self._client.delete("Pod", place[0], pod.name, uid=pod.uid)

    def _wait(self, decision: Decision) -> float:
        if decision.check_at is None:
            return RESYNC_SECONDS
        return min(max(decision.check_at - time.time(), _AT_ONCE), RESYNC_SECONDS)
