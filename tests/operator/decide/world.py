"""A small world for `decide` to act on: pods that start, routers that follow, traffic that counts, a virtual clock.

It fails when requests would be lost: a live route to pods that are gone, or to a cluster that Envoy has not yet or no
longer.

It keeps status as the loop does: a pass whose news is evidence alone stays in memory, everything else is written as
JSON, and a crash forgets what was not written. Nothing here is random: a model that fails in 1 % of its requests has
failed in exactly one hundredth of those that it has had so far.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from tests.operator.decide.models import GOOD, Model, Pod, pairs, samples
from tests.operator.definition import Json, defaulted, merged

from serin_operator.api import LABEL_COMPONENT, LABEL_REVISION
from serin_operator.api.spec import RouterType, Spec, parse_spec
from serin_operator.api.status import Phase, Record, Status, dump_status, parse_status
from serin_operator.build.owner import SERVER, Owner
from serin_operator.build.preview import service as preview_service
from serin_operator.build.router import config_map
from serin_operator.build.routing import writer
from serin_operator.decide.observed import (
    Defaults,
    Observed,
    Resolution,
    Route,
    Router,
    Snapshot,
    Workload,
)
from serin_operator.decide.revisions import pinned, revision_of
from serin_operator.decide.roles import arms, kept, route_of, router_of, running
from serin_operator.decide.rollout import Decision, decide, wants
from serin_operator.decide.routing import carriers
from serin_operator.loop import RESYNC_SECONDS
from serin_operator.memory import worth_writing
from serin_operator.observe.ratio import of_pods

NAME = "iris"
OWNER = Owner("default", NAME, "7b1c3a52")
DEFAULTS = Defaults("serin-model-server:1")
START = 1_750_000_000.0


@dataclass(frozen=True)
class Files:
    """What a router pod has mounted: the route in it, and the clusters that each of its two files names."""

    route: Route
    clusters: frozenset[str]
    named: frozenset[str]
    text: str


@dataclass(frozen=True)
class Pass:
    """One pass as it happened: what was seen, what was decided, and what the routers served at that moment."""

    time: float
    observed: Observed
    decision: Decision
    live: Files | None
    served: dict[str, int]

    @property
    def before(self) -> Status:
        """The status that the pass started from."""
        return self.observed.status

    @property
    def after(self) -> Status:
        """The status that the pass decided."""
        return self.decision.status

    @property
    def news(self) -> list[Record]:
        """The decisions of this pass, oldest first."""
        return [record for record in reversed(self.after.history) if record not in self.before.history]


class Crash(Enum):
    """Where the operator is killed: nothing of the pass is left, or its status is written and nothing is done."""

    BEFORE_WRITE = "before the status is written"
    BEFORE_ACT = "before anything follows from the status"


@dataclass
class World:
    """The cluster, one ModelDeployment in it, and an operator that can be killed.

    traffic: requests per second. start_seconds: how long a pod takes to be ready. router_seconds: how long the
    routers take to follow. metrics: whether counters can be read. routers: whether the routers answer.
    stop_seconds: how long a pod is there after it was told to go. late: how long it is taken for ready after that.
    skew: of the operator's clock. refused: what the API server refused when the last pass acted, if so.
    labelled: the part of the predictions that get a label. lost: the part of the canary's requests that stable gets.
    selector: which pods the Service leads to that clients call; behind: how many answered there last.
    due, due_to_canary, due_copies: the part of a request that is left over, of all, of the canary's and of copies.
    copied: copies that a canary got. preview: requests per second to the Service of the strategy BlueGreen.
    due_to_preview: the part of a request that is left over, of the preview's.
    """

    traffic: float = 100.0
    start_seconds: float = 3.0
    router_seconds: float = 0.5
    metrics: bool = True
    routers: bool = True
    resolution: Resolution | None = None
    refused: str = ""
    labelled: float = 0.5
    lost: float = 0.0
    now: float = START
    generation: int = 0
    retry: str | None = None
    promote: str | None = None
    abort: str | None = None
    stop_seconds: float = 0.0
    skew: float = 0.0
    check_at: float | None = START
    late: float = 0.0
    preview: float = 0.0
    raw: Json = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    memory: Status = field(default_factory=Status)
    written: str = "{}"
    written_at: float = 0.0
    pods: dict[str, list[Pod]] = field(default_factory=dict)
    going: dict[str, list[float]] = field(default_factory=dict)
    ghosts: dict[str, list[float]] = field(default_factory=dict)
    files: Files | None = None
    files_at: float = 0.0
    live: Files | None = None
    seen: Route | None = None
    built: dict[str, Files | None] = field(default_factory=dict)
    selector: dict[str, str] = field(default_factory=dict)
    behind: int = 0
    resolving: bool = False
    woken: bool = False
    served: dict[str, int] = field(default_factory=dict)
    due: float = 0.0
    due_to_canary: float = 0.0
    due_copies: float = 0.0
    copied: int = 0
    due_to_preview: float = 0.0
    passes: list[Pass] = field(default_factory=list)
    statuses: list[Json] = field(default_factory=list)

    # --- the user

    def apply(self, version: str, model: Model = GOOD, **changes: Any) -> None:
        """Asks for this version of the model; `changes` are merged into the spec."""
        self.models[digest(version)] = model
        asked = {"uri": f"https://models.example.com/{version}", "sha256": digest(version), "version": version}
        self.change(**merged({"model": asked}, changes))

    def change(self, **changes: Any) -> None:
        """Merges `changes` into the spec."""
        before = self.raw
        self.raw = defaulted(merged(self.raw, changes))
        self.generation += self.raw != before
        self.woken = True

    def ask_retry(self, mark: str | None) -> None:
        """Sets the annotation that asks for another try, or takes it away."""
        self.retry = mark
        self.woken = True

    def ask_promote(self, mark: str | None) -> None:
        """Sets the annotation that promotes, or takes it away."""
        self.promote = mark
        self.woken = True

    def ask_abort(self, mark: str | None) -> None:
        """Sets the annotation that aborts, or takes it away."""
        self.abort = mark
        self.woken = True

    @property
    def spec(self) -> Spec:
        """What is asked for."""
        return parse_spec(self.raw)

    # --- what tests look at

    @property
    def status(self) -> Status:
        """The latest status."""
        return self.memory

    @property
    def decisions(self) -> list[str]:
        """Every decision so far, oldest first."""
        return [record.decision for each in self.passes for record in each.news]

    @property
    def records(self) -> list[Record]:
        """The same with all that is told of them."""
        return [record for each in self.passes for record in each.news]

    @property
    def activity(self) -> str:
        """What the conditions say that Serin does or is stuck on; empty when it is idle."""
        found = self.status.condition("Reconciling") or self.status.condition("Stalled")
        return found.reason if found else ""

    @property
    def version(self) -> str:
        """The stable version."""
        assert self.status.stable
        return self.status.stable.version

    def revision(self, version: str) -> str:
        """The revision that the present spec would have with this version of the model."""
        raw = merged(self.raw, {"model": {"sha256": digest(version), "version": version}})
        return revision_of(parse_spec(raw), digest(version), DEFAULTS).revision

    # --- time

    def run(self, seconds: float, most: float = RESYNC_SECONDS) -> None:
        """Lets so much time pass, with a pass whenever one is due and at least every `most` seconds."""
        end = self.now + seconds
        while self.now < end:
            self.step(most=min(most, end - self.now))

    def until(self, decision: str, within: float = 3600.0) -> Record:
        """Runs until the next decision of this kind, and gives it."""
        end = self.now + within
        while self.now < end:
            self.step()
            for record in self.passes[-1].news:
                if record.decision == decision:
                    return record
        raise AssertionError(
            f"no {decision} within {within:g} s, but {self.decisions}; now {self.activity}: {self.told}"
        )

    def until_activity(self, reason: str, within: float = 3600.0) -> str:
        """Runs until Serin says that it does this, and gives the sentence."""
        end = self.now + within
        while self.now < end:
            self.step()
            if self.activity == reason:
                return self.told
        raise AssertionError(f"never {reason} within {within:g} s, but {self.activity}: {self.told}")

    @property
    def told(self) -> str:
        """The sentence that goes with `activity`."""
        found = self.status.condition("Reconciling") or self.status.condition("Stalled")
        return found.message if found else ""

    def step(self, most: float = RESYNC_SECONDS, crash: Crash | None = None) -> Pass:
        """Waits until a pass is due, or something in the cluster wakes the operator, and makes the pass."""
        events = [pod.ready_at for pods in self.pods.values() for pod in pods if pod.ready_at > self.now]
        events += [end for ends in self.going.values() for end in ends if end > self.now]
        due = min([*events, *([self.check_at] if self.check_at is not None else []), self.now + most])
        self.elapse(0.05 if self.woken else max(due - self.now, 0.05))
        self.woken = False
        return self.look(crash)

    def elapse(self, seconds: float) -> None:
        """Traffic flows along the live route, then the routers take up files that are old enough."""
        self.due += self.traffic * seconds
        requests = int(self.due)
        self.due -= requests
        self._flow(requests)
        self._preview(seconds)
        self.now += seconds
        for pod in (pod for pods in self.pods.values() for pod in pods):
            pod.past.append((self.now, pod.requests))
        if self.files and self.files != self.live and self.routers and self.now - self.files_at >= self.router_seconds:
            if self.live and self.live.named != self.files.named and self.memory.phase is not Phase.PENDING:
                # Envoy swaps both files at once, but its workers do not follow at once: what a route names, before
                # and after, has to be there before and after, or requests are lost.
                assert self.files.named <= self.live.clusters, f"new with its route: {self.files.route}"
                assert self.live.named <= self.files.clusters, f"gone with its route: {self.live.route}"
            self.live = self.files

    # --- the operator

    @property
    def clock(self) -> float:
        """What the operator takes for the time."""
        return self.now + self.skew

    def look(self, crash: Crash | None = None) -> Pass:
        """One pass: observe, decide, write, act."""
        observed = self._observe()
        route = route_of(self.memory)
        if observed.router is not None:
            self.seen = route if route is not None and observed.router.serves(route) else None
        decision = decide(observed, self.clock)
        this = Pass(self.clock, observed, decision, self.live, dict(self.served))
        if crash is not Crash.BEFORE_WRITE:
            self._write(decision.status)
        if crash is None:
            self._act(decision)
        else:
            self.memory, self.seen = parse_status(json.loads(self.written)), None
        self.passes.append(this)
        # The operator sleeps so many seconds, whatever its clock says when they are over.
        self.check_at = None if decision.check_at is None else decision.check_at - self.skew
        return this

    def _observe(self) -> Observed:
        status, spec = self.memory, self.spec
        wanted = wants(status, spec, self.seen, self.clock)
        following = status.routing.next if status.routing else None
        return Observed(
            name=NAME,
            generation=self.generation,
            retry=self.retry,
            promote=self.promote,
            abort=self.abort,
            spec=spec,
            status=status,
            defaults=DEFAULTS,
            workloads={revision: self._workload(revision) for revision in self.pods.keys() | self.going.keys()},
            router=self._seen(router_of(status)) if wanted.router else None,
            next_router=self._seen(following) if following else None,
            served=self.seen,
            refused=self.refused,
            snapshot=self._snapshot(spec, status) if wanted.snapshot else None,
            resolution=(self.resolution if self.resolving and self.resolution else Resolution())
            if pinned(spec.model, status.resolved) is None
            else None,
        )

    def _write(self, status: Status) -> None:
        """As the loop does: evidence alone is written now and then, everything else at once."""
        if worth_writing(self.memory, status, self.clock - self.written_at):
            raw = dump_status(status)
            self.statuses.append(raw)
            self.written, self.written_at = json.dumps(raw), self.clock
        self.memory = status

    def _act(self, decision: Decision) -> None:
        self.resolving = decision.resolve
        status = decision.status
        names = {revision.revision for revision in running(status)}
        for revision in running(status):
            model = self.models[revision.sha256]
            pods = self.pods.setdefault(revision.revision, [])
            self._let_go(revision.revision, pods[revision.replicas :])
            del pods[revision.replicas :]
            for index in range(len(pods), revision.replicas):
                ready_at = self.now + self.start_seconds if model.starts else float("inf")
                pods.append(Pod(f"{NAME}-{revision.revision}-{index}-{self.now:.2f}", self.now, ready_at))
        for gone in self.pods.keys() - names:
            self._let_go(gone, self.pods.pop(gone))
        if status.stable:
            entry = writer(router_of(status)).entry(OWNER, self.spec, status)
            before, self.selector = self.selector, entry["spec"]["selector"]
            self.woken = self.woken or before != self.selector
        if RouterType.EMBEDDED not in carriers(status):
            self.files = self.live = None
            return
        files = self._mounted(status)
        if files and files != self.files:
            self.files, self.files_at = files, self.now

    def _let_go(self, revision: str, pods: list[Pod]) -> None:
        """These pods are told to go; until they have, they are there."""
        if pods and self.stop_seconds:
            self.going.setdefault(revision, []).extend([self.now + self.stop_seconds] * len(pods))
        ready = sum(pod.ready_at <= self.now for pod in pods)
        self.ghosts.setdefault(revision, []).extend([self.now + self.late] * ready)

    def _mounted(self, status: Status) -> Files | None:
        """The ConfigMap for this status. Built once per route and set of revisions, since building it is slow."""
        key = json.dumps([str(route_of(status)), [r and r.revision for r in (status.previous, *status.retiring)]])
        key += status.canary.revision if status.canary else ""
        if key not in self.built:
            manifest = config_map(OWNER, status, self.spec.traffic)
            self.built[key] = _files(manifest, status) if manifest else None
        return self.built[key]

    # --- the cluster

    def turn_bad(self) -> None:
        """The model that serves begins to fail in half of its requests."""
        if self.memory.stable:
            sha256 = self.memory.stable.sha256
            self.models[sha256] = replace(self.models[sha256], errors=0.5)

    def restart_pods(self, revision: str, most: int | None = None) -> None:
        """Every container of the revision, or so many, starts again: not ready for a while, counters at zero."""
        for pod in self.pods.get(revision, [])[:most]:
            pod.started, pod.ready_at = self.now, max(pod.ready_at, self.now + self.start_seconds)
            pod.requests = pod.copies = 0
            pod.past.clear()

    def _flow(self, requests: int) -> None:
        if self.selector.get(LABEL_COMPONENT) == SERVER:
            self._flow_to_pods(requests)
            return
        if self.live is None:
            return
        route = self.live.route
        to_canary = 0
        if route.canary and self._ready(route.canary):
            self.due_to_canary += requests * route.weight / 100 * (1 - self.lost)
            to_canary = int(self.due_to_canary)
            self.due_to_canary -= to_canary
            self._serve(route.canary, to_canary)
            self.due_copies += requests * route.mirror / 100 * (1 - self.lost)
            copies = int(self.due_copies)
            self.due_copies -= copies
            self._copy(route.canary, copies)
        if self._ready(route.stable):
            self._serve(route.stable, requests - to_canary)
        assert route.stable in self.pods or self.memory.phase is Phase.PENDING, (
            f"{requests} requests to {route.stable}, which is gone"
        )

    def _copy(self, revision: str, requests: int) -> None:
        """Copies of requests that somebody else answers."""
        self.copied += requests
        for index, pod in enumerate(self._ready(revision)):
            own = requests // len(self._ready(revision)) + (index < requests % len(self._ready(revision)))
            pod.requests += own
            pod.copies += own

    def _preview(self, seconds: float) -> None:
        """Somebody calls the new revision at its Service, where it has one."""
        self.due_to_preview += self.preview * seconds
        requests = int(self.due_to_preview)
        self.due_to_preview -= requests
        manifest = preview_service(OWNER, self.spec, self.memory) if self.raw else None
        revision = manifest["spec"]["selector"][LABEL_REVISION] if manifest else ""
        if self._ready(revision):
            self._serve(revision, requests)

    def _flow_to_pods(self, requests: int) -> None:
        """The Service takes its pods in turns."""
        status = self.memory
        named = self.selector.get(LABEL_REVISION)
        there = {name: len(self._ready(name)) for name in self.pods if named in (None, name) and self._ready(name)}
        arms = {revision.revision for revision in (status.stable, status.canary) if revision}
        assert there.keys() <= arms, f"requests to {there.keys() - arms}, which have no role"
        self.behind = sum(there.values())
        for name, pods in there.items():
            self._serve(name, requests * pods // self.behind)

    def _serve(self, revision: str, requests: int) -> None:
        ready = self._ready(revision)
        self.served[revision] = self.served.get(revision, 0) + requests
        for index, pod in enumerate(ready):
            pod.requests += requests // len(ready) + (index < requests % len(ready))

    def _ready(self, revision: str) -> list[Pod]:
        return [pod for pod in self.pods.get(revision, []) if pod.ready_at <= self.now]

    def _seen_ready(self, revision: str) -> int:
        """Its ready pods as the operator and the routers see them: some may have been told to go."""
        return len(self._ready(revision)) + sum(end > self.now for end in self.ghosts.get(revision, []))

    def _model(self, revision: str) -> Model:
        for known in (self.memory.stable, self.memory.canary, *kept(self.memory)):
            if known and known.revision == revision:
                return self.models[known.sha256]
        return GOOD  # it runs from before a crash; nobody asks for its counters

    def _workload(self, revision: str) -> Workload:
        going = [end for end in self.going.get(revision, []) if end > self.now]
        pods = self.pods.get(revision, [])
        trouble = self._model(revision).trouble if pods else None
        return Workload(self._seen_ready(revision), trouble, len(pods) + len(going))

    def _seen(self, kind: RouterType) -> Router:
        if kind is RouterType.REPLICA_RATIO:
            ready = {name: self._seen_ready(name) for name in self.pods if self._seen_ready(name)}
            return of_pods(self.memory, self.selector, ready)
        return self._router()

    def _router(self) -> Router:
        if not self.routers:
            return Router(ready=1, problem="router iris-router-0 does not tell its route: TimeoutError")
        if self.live is None:
            return Router(ready=1, problem="it has no route yet")
        healthy = {name: self._seen_ready(name) for name in self.pods if f"revision-{name}" in self.live.clusters}
        return Router(ready=1, routes=(self.live.route,), healthy=(healthy,))

    def _snapshot(self, spec: Spec, status: Status) -> Snapshot:
        names = frozenset(pod.name for pods in self.pods.values() for pod in pods)
        if not self.metrics:
            return Snapshot(pods=names, problem="Prometheus at http://prometheus:9090: TimeoutError")
        fleet = {name: (self._model(name), [pod for pod in self._ready(name) if pod.read]) for name in self.pods}
        unread = tuple(pod.name for name in self.pods for pod in self._ready(name) if not pod.read)
        found = dict(samples(fleet, spec.analysis, self.labelled, self.now))
        if status.stable and status.canary and status.canary.revision in fleet:
            stable, canary = status.stable.revision, status.canary.revision
            found |= pairs(stable, self._model(stable), canary, *fleet[canary], self.labelled)
        unseen = [arm for arm in arms(status) if arm not in fleet or not fleet[arm][1]]
        return Snapshot(
            samples=found,
            processes=frozenset(pod.series for _, pods in fleet.values() for pod in pods),
            pods=names,
            unread=unread,
            problem=f"no metrics of revision {', '.join(unseen)}" if unseen else None,
        )


def digest(version: str) -> str:
    """The SHA-256 of a version's model bytes, which are its name."""
    return hashlib.sha256(version.encode()).hexdigest()


def serving(version: str = "v1", model: Model = GOOD, **changes: Any) -> World:
    """A world in which this version serves, after a first apply with these changes to the spec."""
    world = World()
    world.apply(version, model, **changes)
    world.until("Serving")
    assert world.status.phase is Phase.SERVING
    return world


def rolling(model: Model = GOOD, step: int = 0, **changes: Any) -> World:
    """v1 serves, and v2 has been at this step for one look at the counters at least."""
    world = serving(**changes)
    world.apply("v2", model)
    while not (world.status.rollout and world.status.rollout.step == step and world.activity == "Evaluating"):
        world.step()
        assert "Promoted" not in world.decisions, world.decisions
    return world


def without_times(status: Status) -> Status:
    """The status without its times and without the sentences that tell of them."""
    rollout = status.rollout and replace(
        status.rollout,
        started_at=0.0,
        step_started_at=None,
        evidence_at=None,
        unready_since=None,
        paused_at=None,
        forecast=None,
    )
    return replace(status, rollout=rollout, conditions=())


def _files(manifest: dict[str, Any], status: Status) -> Files:
    route = route_of(status)
    assert route
    data = manifest["data"]
    clusters = {resource["name"] for resource in json.loads(data["cds.json"])["resources"]}
    (table,) = json.loads(data["rds.json"])["resources"]
    actions = [entry["route"] for host in table["virtual_hosts"] for entry in host["routes"] if "route" in entry]
    named = {action["cluster"] for action in actions}
    return Files(route, frozenset(clusters), frozenset(named), json.dumps(data, sort_keys=True))
