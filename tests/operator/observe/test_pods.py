"""Pod objects as kubelets write them, and what Serin makes of them."""

import json
from typing import Any

import pytest
from tests.operator.observe.holes import holes

from serin_operator.decide.counters import advance, baseline
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Resolution, Trouble, Workload
from serin_operator.observe.pods import Pod, read_pod, resolution, restarts, workload

REVISION = "0123456789"
IMAGE_MESSAGE = 'Back-off pulling image "serin-model-server:9"'
FETCHED: dict[str, Any] = {
    "name": "fetch",
    "restartCount": 0,
    "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
}
WAITS: dict[str, Any] = {"name": "server", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}
RUNS: dict[str, Any] = {
    "name": "server",
    "restartCount": 0,
    "state": {"running": {"startedAt": "2025-06-15T15:06:40Z"}},
}


def raw(
    *, ready: bool = False, inits: list[Any] | None = None, mains: list[Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A server pod as the API gives it."""
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": str(ready), "reason": None if ready else "ContainersNotReady"},
    ]
    return {
        "metadata": {
            "name": more.get("name", "iris-0123456789-x"),
            "uid": "5f0c",
            "labels": {"serin.dev/component": more.get("component", "server"), "serin.dev/revision": REVISION},
            "ownerReferences": [{"kind": "ReplicaSet", "uid": "rs", "controller": True}],
            **more.get("metadata", {}),
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.2.3",
            "conditions": conditions,
            "initContainerStatuses": [FETCHED] if inits is None else inits,
            "containerStatuses": [RUNS] if mains is None else mains,
            **more.get("status", {}),
        },
    }


def ended(
    name: str, code: int, *, message: Any = None, reason: str = "Error", restarts: int = 0, now: bool = True
) -> Any:
    """A container that ended, either `now` or before its present run."""
    told = {} if message is None else {"message": message if isinstance(message, str) else json.dumps(message)}
    state = {"terminated": {"exitCode": code, "reason": reason, **told}}
    if now:
        return {"name": name, "restartCount": restarts, "state": state}
    backoff = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}}
    return {"name": name, "restartCount": restarts, "state": backoff, "lastState": state}


def told(reason: str, message: str = "why") -> dict[str, str]:
    return {"reason": reason, "message": message}


@pytest.mark.parametrize(
    ("pod", "trouble"),
    [
        pytest.param(raw(ready=True), None, id="ready"),
        pytest.param(raw(inits=[WAITS | {"name": "fetch"}], mains=[WAITS]), None, id="starting"),
        pytest.param(raw(), None, id="runs, not ready yet"),
        pytest.param({"metadata": {"name": "new"}}, None, id="just created"),
        pytest.param(
            raw(inits=[{"name": "fetch", "state": {"waiting": told("ErrImagePull", "not found")}}], mains=[WAITS]),
            Trouble("ErrImagePull", "container fetch: not found"),
            id="image that is not there",
        ),
        pytest.param(
            raw(mains=[{"name": "server", "state": {"waiting": told("ImagePullBackOff", IMAGE_MESSAGE)}}]),
            Trouble("ImagePullBackOff", f"container server: {IMAGE_MESSAGE}"),
            id="image pull back-off",
        ),
        pytest.param(
            raw(mains=[{"name": "server", "state": {"waiting": {"reason": "InvalidImageName"}}}]),
            Trouble("InvalidImageName", "container server: "),
            id="invalid image name without a message",
        ),
        pytest.param(
            raw(
                inits=[
                    {"name": "fetch", "state": {"waiting": told("CreateContainerConfigError", 'secret "s" not found')}}
                ]
            ),
            Trouble("CreateContainerConfigError", 'container fetch: secret "s" not found'),
            id="secret that is not there",
        ),
        pytest.param(
            raw(inits=[ended("fetch", 11, message=told("NotFound", "404"))], mains=[WAITS]),
            Trouble("NotFound", "404", 11),
            id="model not found: may come yet",
        ),
        pytest.param(
            raw(inits=[ended("fetch", 10, message=told("Unreachable"), restarts=4, now=False)], mains=[WAITS]),
            Trouble("Unreachable", "why", 10),
            id="store unreachable again and again",
        ),
        pytest.param(
            raw(inits=[ended("fetch", 13, message=told("DigestMismatch"))], mains=[WAITS]),
            Trouble("DigestMismatch", "why", 13, permanent=True),
            id="other bytes than pinned",
        ),
        pytest.param(
            raw(mains=[ended("server", 21, message=told("MissingModule", "no module named 'xgboost'"), now=False)]),
            Trouble("MissingModule", "no module named 'xgboost'", 21, permanent=True),
            id="missing module, in back-off",
        ),
        pytest.param(
            raw(
                mains=[
                    RUNS
                    | {"restartCount": 1, "lastState": ended("server", 23, message=told("VersionMismatch"))["state"]}
                ]
            ),
            Trouble("VersionMismatch", "why", 23, permanent=True),
            id="runs again after it could not load",
        ),
        pytest.param(
            raw(mains=[ended("server", 137, reason="OOMKilled")]),
            Trouble(
                "OutOfMemory",
                "container server ended with exit code 137 (OOMKilled): raise server.resources.limits.memory",
                137,
            ),
            id="out of memory once",
        ),
        pytest.param(
            raw(mains=[ended("server", 137, reason="OOMKilled", restarts=3, now=False)]),
            Trouble(
                "OutOfMemory",
                "container server ended with exit code 137 (OOMKilled): raise server.resources.limits.memory",
                137,
                permanent=True,
            ),
            id="out of memory every time",
        ),
        pytest.param(
            raw(mains=[ended("server", 1, restarts=1, now=False)]),
            Trouble("Crashed", "container server ended with exit code 1 (Error): look at its log", 1),
            id="crashed once",
        ),
        pytest.param(
            raw(mains=[ended("server", 1, restarts=2)]),
            Trouble("Crashed", "container server ended with exit code 1 (Error): look at its log", 1, permanent=True),
            id="crashed for the third time",
        ),
        pytest.param(
            raw(mains=[ended("server", 1, message="Traceback (most recent call last): …", restarts=1, now=False)]),
            Trouble("Crashed", "container server ended with exit code 1 (Error): look at its log", 1),
            id="its last words are not Serin's",
        ),
        pytest.param(
            raw(mains=[ended("server", 20, message='{"reason": "NotAModel", "mess', restarts=1, now=False)]),
            Trouble("Crashed", "container server ended with exit code 20 (Error): look at its log", 20),
            id="its last words are cut short",
        ),
        pytest.param(
            raw(mains=[ended("server", 20, message=told("not a reason!"), restarts=1, now=False)]),
            Trouble("Crashed", "container server ended with exit code 20 (Error): look at its log", 20),
            id="a reason that no condition may have",
        ),
        pytest.param(
            raw(mains=[ended("server", 20, message={"reason": 5, "message": None}, restarts=1, now=False)]),
            Trouble("Crashed", "container server ended with exit code 20 (Error): look at its log", 20),
            id="last words of the wrong kind",
        ),
        pytest.param(
            raw(
                inits=[],
                mains=[],
                status={
                    "phase": "Pending",
                    "conditions": [
                        {
                            "type": "PodScheduled",
                            "status": "False",
                            "reason": "Unschedulable",
                            "message": "0/3 nodes are available: 3 Insufficient memory.",
                        }
                    ],
                },
            ),
            Trouble("Unschedulable", "0/3 nodes are available: 3 Insufficient memory."),
            id="no node has room",
        ),
    ],
)
def test_what_keeps_a_pod_from_serving(pod: dict[str, Any], trouble: Trouble | None) -> None:
    assert read_pod(pod).trouble == trouble


def test_a_message_that_is_nested_without_end_is_none_of_serins() -> None:
    crashed = read_pod(raw(mains=[ended("server", 1, message="[" * 4096)]))
    assert crashed.trouble == Trouble("Crashed", "container server ended with exit code 1 (Error): look at its log", 1)


# What the API server sees to itself.
REQUIRED = {"name", "type", "exitCode", "uid"}


def test_whatever_a_pod_lacks_it_is_read() -> None:
    mains = [ended("server", 1, message=told("OutOfTime"), restarts=2), ended("other", 0, message="{}", now=False)]
    conditions = [{"type": "PodScheduled", "status": "False"}, {"type": "Ready", "status": "False"}]
    started = {"startTime": "2025-06-15T15:06:40Z", "conditions": conditions}
    for where, holed in holes(raw(mains=mains, status=started)):
        required = where[-1] in REQUIRED or where == ("metadata",) or ("conditions" in where and where[-1] == "status")
        if not required:
            assert not read_pod(holed).serving, where


def test_a_ready_pod_has_no_trouble_any_more() -> None:
    pod = read_pod(raw(ready=True, mains=[RUNS | {"lastState": ended("server", 1)["state"], "restartCount": 7}]))
    assert (pod.trouble, pod.serving) == (None, True)


@pytest.mark.parametrize(
    ("pod", "serving"),
    [
        pytest.param(raw(ready=True), True, id="ready"),
        pytest.param(raw(), False, id="not ready"),
        pytest.param(raw(ready=True, metadata={"deletionTimestamp": "2025-06-15T15:06:40Z"}), False, id="terminating"),
        pytest.param(raw(ready=True, status={"podIP": None}), False, id="without address"),
    ],
)
def test_a_pod_serves_while_it_is_ready_and_stays(pod: dict[str, Any], serving: bool) -> None:
    assert read_pod(pod).serving is serving


def test_a_pod_is_read_with_its_labels_and_marks() -> None:
    pod = read_pod(raw(ready=True, metadata={"annotations": {"serin.dev/route": "abc.3"}}))
    assert (pod.name, pod.component, pod.revision, pod.ip) == ("iris-0123456789-x", "server", REVISION, "10.1.2.3")
    assert (pod.route_mark, pod.owner, pod.uid, pod.failed) == ("abc.3", "rs", "5f0c", False)


def test_an_evicted_pod_has_failed() -> None:
    assert read_pod(raw(status={"phase": "Failed", "reason": "Evicted", "containerStatuses": []})).failed is True


def several(*pods: dict[str, Any]) -> list[Pod]:
    return [read_pod(pod) for pod in pods]


CRASHED = raw(mains=[ended("server", 1)])
FOREVER = raw(mains=[ended("server", 20, message=told("NotAModel"))])
LEAVING = raw(ready=True, metadata={"deletionTimestamp": "2025-06-15T15:06:40Z"})


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], Workload()),
        ([raw(ready=True), raw(ready=True)], Workload(2, pods=2)),
        ([raw(ready=True), LEAVING], Workload(1, pods=2)),
        ([raw(ready=True, component="router"), raw(ready=True)], Workload(1, pods=1)),
        (
            [raw(ready=True), CRASHED],
            Workload(1, Trouble("Crashed", "container server ended with exit code 1 (Error): look at its log", 1), 2),
        ),
        ([CRASHED, FOREVER], Workload(0, Trouble("NotAModel", "why", 20, permanent=True), 2)),
    ],
    ids=["none", "two ready", "one leaving", "a router is no server", "one crashed", "permanent first"],
)
def test_a_workload_is_its_pods_taken_together(pods: list[dict[str, Any]], expected: Workload) -> None:
    assert workload(several(*pods), REVISION) == expected


def test_what_keeps_a_revision_from_more_pods_is_told_where_no_pod_tells_worse() -> None:
    refused = 'pods "iris-a-x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=5, limited: pods=5'
    trouble = Trouble("FailedCreate", refused)
    assert workload([], REVISION, refused) == Workload(0, trouble)
    assert workload(several(raw(ready=True)), REVISION, refused) == Workload(1, trouble, 1)
    forever = workload(several(FOREVER), REVISION, refused).trouble
    assert forever and forever.reason == "NotAModel"


def test_other_revisions_pods_do_not_count() -> None:
    assert workload(several(raw(ready=True)), "another000") == Workload()


def resolver(container: dict[str, Any]) -> dict[str, Any]:
    return raw(name="iris-resolve-1", component="resolver", inits=[], mains=[container])


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        pytest.param({"name": "digest", "state": {"running": {}}}, Resolution(), id="reads"),
        pytest.param(
            ended("digest", 0, message={"sha256": "a" * 64, "size": 1234}, reason="Completed"),
            Resolution("a" * 64, 1234),
            id="done",
        ),
        pytest.param(
            ended("digest", 12, message=told("Denied", "401"), restarts=2, now=False),
            Resolution(trouble=Trouble("Denied", "401", 12)),
            id="denied",
        ),
        pytest.param(ended("digest", 0, reason="Completed"), Resolution(), id="done without a word"),
    ],
)
def test_a_resolver_tells_a_digest_or_why_not(container: dict[str, Any], expected: Resolution) -> None:
    assert resolution(several(resolver(container)), "iris-resolve-1") == expected


@pytest.mark.parametrize(
    "answer",
    [
        *("hello", "[1]", "{}", '{"sha256": "a"}', '{"sha256": "a", "size": "many"}', "null"),
        *('{"sha256": "a", "size": 1e999}', "[" * 4096),
    ],
)
def test_an_answer_that_is_none_is_told(answer: str) -> None:
    found = resolution(several(resolver(ended("digest", 0, message=answer))), "iris-resolve-1")
    assert found.sha256 is None
    assert found.trouble and (found.trouble.reason, found.trouble.permanent) == ("UnknownAnswer", True)


def test_without_the_resolver_there_is_no_answer() -> None:
    assert resolution(several(raw(ready=True)), "iris-resolve-1") == Resolution()


STARTED = 1_750_000_000  # 2025-06-15T15:06:40Z


@pytest.mark.parametrize(
    ("status", "seconds", "counts"),
    [
        ({"startTime": "2025-06-15T15:06:40Z"}, 0, Counts(0, 0)),
        ({"startTime": "2025-06-15T15:06:40Z"}, 59.9, Counts(0, 0)),
        ({"startTime": "2025-06-15T15:06:40Z"}, 3600, Counts(0, 60)),
        ({"startTime": "2025-06-15T17:06:40+02:00"}, 3600, Counts(0, 60)),
        ({"startTime": "2025-06-15T15:06:40Z"}, -90, Counts(0, 0)),  # the node's clock is ahead
    ],
)
def test_minutes_of_a_pod_are_trials(status: dict[str, Any], seconds: float, counts: Counts) -> None:
    pod = read_pod(raw(status=status))
    assert restarts([pod], STARTED + seconds) == {REVISION: {f"iris-0123456789-x/{STARTED}": counts}}


def test_restarts_are_failures_as_far_as_there_are_minutes_for_them() -> None:
    mains = [{"name": name, "restartCount": count, "state": {}} for name, count in (("server", 3), ("sidecar", 1))]
    inits = [{"name": "fetch", "restartCount": 9, "state": {}}]
    pod = read_pod(raw(mains=mains, inits=inits, status={"startTime": "2025-06-15T15:06:40Z"}))
    found = [restarts([pod], STARTED + 60 * minutes)[REVISION] for minutes in (1, 3, 4, 100)]
    assert [list(one.values()) for one in found] == [[Counts(1, 1)], [Counts(3, 3)], [Counts(4, 4)], [Counts(4, 100)]]


def test_minutes_and_restarts_count_once_though_the_clock_is_set_back() -> None:
    mains = [{"name": "server", "restartCount": 3, "state": {}}]
    pod = read_pod(raw(mains=mains, status={"startTime": "2025-06-15T15:06:40Z"}))
    ledger = baseline(restarts([pod], STARTED + 60 * 100)[REVISION])
    ledger, back = advance(ledger, restarts([pod], STARTED + 60 * 40)[REVISION])
    assert back == Counts()
    assert advance(ledger, restarts([pod], STARTED + 60 * 101)[REVISION])[1] == Counts(0, 1)


def test_other_pods_and_pods_without_a_node_have_no_minutes() -> None:
    waiting = read_pod(raw())
    router = read_pod(raw(component="router", status={"startTime": "2025-06-15T15:06:40Z"}))
    assert restarts([waiting, router], STARTED + 600) == {}
