"""Status to JSON and back: nothing is lost on the way, and nothing is written that the CRD would drop."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.definition import Json, schema, status_problems

from serin_operator.api import callers
from serin_operator.api.spec import GatewayRoute, Mesh, Profile, RouterType, Signature, Strategy, Traffic
from serin_operator.api.status import (
    HISTORY_LIMIT,
    BoundReport,
    ByHand,
    Condition,
    Drift,
    Failure,
    Forecast,
    Marks,
    MetricReport,
    Phase,
    Record,
    Rejected,
    Remark,
    Resolved,
    Revision,
    Rollout,
    Routing,
    Slot,
    Status,
    Tally,
    Watch,
    dump_status,
    parse_status,
    parse_time,
    rfc3339,
)

NOW = 1_750_000_000.0

times = st.integers(0, 4_000_000_000_000_000).map(lambda microseconds: microseconds / 1e6)
whole_seconds = st.integers(0, 4_000_000_000).map(float)
words = st.text(max_size=20)
names = st.text(alphabet="0123456789abcdef", min_size=1, max_size=10)
counts = st.integers(0, 10**12)
rates = st.floats(-1, 1)
odds = st.floats(0, 1e9)

revisions = st.builds(
    Revision,
    revision=names,
    version=words,
    uri=words,
    format=words,
    sha256=words,
    image=words,
    secret=st.none() | names,
    trusted_types=st.lists(words, max_size=2).map(tuple),
    signature=st.none() | st.builds(Signature, words, st.none() | names, st.none() | names),
    profile=st.none() | st.builds(Profile, words, words),
    config=st.dictionaries(words, st.integers() | words | st.lists(words, max_size=2), max_size=3),
    ready_replicas=st.integers(0, 100),
    kept_until=st.none() | times,
)
tallies = st.builds(lambda y, n: Tally(min(y, n), n), counts, counts)
reports = st.builds(
    MetricReport,
    name=st.sampled_from(["errors", "latency", "accuracy"]),
    verdict=st.sampled_from(["Worse", "NonInferior", "Superior", "Undecided", "NoData"]),
    canary=tallies,
    stable=tallies,
    odds_worse=odds,
    odds_non_inferior=odds,
    message=words,
    needed=words,
    role=words,
    difference=st.none() | rates,
    low=st.none() | rates,
    high=st.none() | rates,
    odds_superior=st.none() | odds,
    bound=st.none() | st.builds(BoundReport, rates, odds, odds, odds),
)
metrics = st.lists(reports, max_size=3, unique_by=lambda report: report.name).map(tuple)
rollouts = st.builds(
    Rollout,
    started_at=times,
    steps=st.integers(0, 20),
    step=st.none() | st.integers(0, 20),
    step_started_at=st.none() | times,
    step_trials=st.dictionaries(st.sampled_from(["errors", "latency"]), counts),
    verified_weight=st.integers(0, 100),
    unready_since=st.none() | times,
    paused_at=st.none() | times,
    exposed=counts,
    forecast=st.none()
    | st.builds(
        Forecast,
        time=times,
        message=words,
        minutes=st.none() | odds,
        limited_by=words,
        detectable=st.none() | rates,
        per_minute=st.none() | odds,
    ),
    remarks=st.lists(st.builds(Remark, words, words), max_size=2).map(tuple),
    evidence_at=st.none() | times,
    evidence=words,
)
watches = st.builds(
    Watch,
    revision=names,
    against=names,
    until=times,
    worse_since=st.none() | times,
    evidence_at=st.none() | times,
    evidence=words,
)
drifts = st.builds(Drift, revision=names, since=times, at=times, rows=counts, periods=counts, odds=odds, evidence=words)
records = st.builds(
    Record,
    time=times,
    decision=st.sampled_from(["Started", "Promoted"]),
    reason=words,
    message=words,
    from_revision=st.none() | names,
    to_revision=st.none() | names,
    step=st.none() | st.integers(0, 20),
    weight=st.integers(0, 100),
    metrics=metrics,
)
conditions = st.builds(
    Condition,
    type=st.sampled_from(["Ready", "Stalled"]),
    status=st.sampled_from(["True", "False", "Unknown"]),
    reason=st.sampled_from(["Serving", "NoTraffic"]),
    message=words,
    last_transition_time=whole_seconds,
    observed_generation=st.integers(0, 1000),
)
gateways = st.builds(
    GatewayRoute,
    parents=st.lists(st.fixed_dictionaries({"name": names, "port": st.integers(1, 65535)}), max_size=2).map(tuple),
    hostnames=st.lists(names, max_size=2).map(tuple),
    grpc=st.none() | st.builds(GatewayRoute, st.just(({"name": "public"},))),
)
pairs = st.tuples(names, words)
traffics = st.builds(
    Traffic,
    router=st.sampled_from(RouterType),
    router_replicas=st.integers(1, 10),
    router_resources=st.dictionaries(words, st.dictionaries(words, st.integers() | words, max_size=2), max_size=2),
    timeout=st.floats(0.001, 3600),
    gateway=st.none() | gateways,
    own_route=st.none() | names,
    mesh=st.builds(Mesh, st.lists(names, max_size=2).map(tuple), st.lists(names, max_size=2).map(tuple)),
    testers=st.none() | st.builds(callers.Testers, st.none() | pairs, st.none() | pairs),
    sticky=st.none() | st.builds(callers.Sticky, st.none() | names, st.none() | names),
    tls_secret=st.none() | names,
    access_log=st.none() | st.floats(0, 1),
)
statuses = st.builds(
    Status,
    observed_generation=st.integers(0, 1000),
    operator=words,
    phase=st.sampled_from(Phase),
    weight=st.integers(0, 100),
    replicas=st.integers(0, 100),
    ready_replicas=st.integers(0, 100),
    selector=words,
    stable=st.none() | revisions,
    canary=st.none() | revisions,
    previous=st.none() | revisions,
    retiring=st.lists(revisions, max_size=2).map(tuple),
    routing=st.none()
    | st.builds(
        Routing,
        router=st.sampled_from(RouterType),
        next=st.none() | st.sampled_from(RouterType),
        leaving=st.none() | st.sampled_from(RouterType),
        leaving_until=st.none() | times,
        weight=st.none() | st.floats(0, 100),
    ),
    traffic=st.lists(traffics, max_size=3).map(tuple),
    resolved=st.none() | st.builds(Resolved, words, words, counts, st.none() | names),
    rejected=st.none() | st.builds(Rejected, names, words, words, times, st.none() | names),
    last_failure=st.none() | st.builds(Failure, words, words, words, times, st.none() | st.integers(-1, 255)),
    rollout=st.none() | rollouts,
    watch=st.none() | watches,
    drift=st.none() | drifts,
    metrics=metrics,
    history=st.lists(records, max_size=2).map(tuple),
    conditions=st.lists(conditions, max_size=2, unique_by=lambda condition: condition.type).map(tuple),
)


@given(statuses)
@settings(max_examples=100, deadline=None)
def test_a_status_comes_back_from_json_as_it_was(status: Status) -> None:
    assert parse_status(json.loads(json.dumps(dump_status(status)))) == status


def test_a_resource_that_was_never_seen_has_an_empty_status() -> None:
    assert parse_status({}) == Status()


@pytest.mark.parametrize(
    "unknown", [{"router": "Embedded"}, {"router": "Other", "routerReplicas": 1, "routerResources": {}, "timeout": 1.0}]
)
def test_what_a_router_was_asked_for_by_another_version_is_left_out(unknown: Json) -> None:
    """The router then goes by the spec, and all else in the status holds."""
    kept = Traffic(RouterType.ISTIO, 1, {}, 30.0)
    raw = dump_status(Status(weight=10, traffic=(kept,)))
    raw["traffic"].insert(0, unknown)
    assert parse_status(raw) == Status(weight=10, traffic=(kept,))


def full(kind: Any, **values: Any) -> Any:
    """A value of this dataclass in which every field is set, so that every field is written."""
    samples: dict[Any, Any] = {
        str: "x",
        str | None: "x",
        int: 1,
        int | None: 1,
        float: NOW,
        float | None: NOW,
        bool: True,
        bool | None: True,
        Strategy: Strategy.BLUE_GREEN,
        ByHand | None: ByHand.STEP,
        Marks | None: Marks("x", "x"),
        Mapping[str, Any]: {"image": "own:1", "podTemplate": {"labels": {"a": "b"}}},
        Mapping[str, int]: {"errors": 3},
        tuple[str, ...]: ("mine.Clip",),
        Profile | None: Profile("x", "x"),
        Signature | None: Signature("x", "x", "x"),
        RouterType: RouterType.ISTIO,
        RouterType | None: RouterType.ISTIO,
        GatewayRoute | None: GatewayRoute(({"name": "x"},), ("x",), GatewayRoute(({"name": "x"},), ("x",))),
        Mesh: Mesh(("x",), ("x",)),
        callers.Testers | None: callers.Testers(("x", "x"), ("x", "x")),
        callers.Sticky | None: callers.Sticky("x", "x"),
    }
    hints = get_type_hints(kind)
    return kind(**{name: values[name] if name in values else samples[hint] for name, hint in hints.items()})


def everything() -> Status:
    """A status in which every field that Serin can write is written."""
    report = full(
        MetricReport,
        name="errors",
        verdict="Worse",
        canary=Tally(1, 2),
        stable=Tally(3, 4),
        bound=full(BoundReport),
    )
    record = full(Record, metrics=(report,))
    condition = full(Condition, type="Ready", status="True")
    revision = full(Revision)
    without_end = replace(revision, kept_until=None)
    return full(  # type: ignore[no-any-return]
        Status,
        phase=Phase.PROGRESSING,
        stable=without_end,
        canary=without_end,
        previous=revision,
        retiring=(revision,),
        routing=full(Routing, blue=full(Slot), green=full(Slot)),
        traffic=(full(Traffic),),
        resolved=full(Resolved),
        rejected=full(Rejected),
        last_failure=full(Failure),
        rollout=full(Rollout, forecast=full(Forecast), remarks=(full(Remark),)),
        watch=full(Watch),
        drift=full(Drift),
        metrics=(report,),
        history=(record,),
        conditions=(condition,),
    )


def test_the_full_status_is_full() -> None:
    def unset(value: Any, path: str) -> list[str]:
        if isinstance(value, tuple):
            return [found for inner in value for found in unset(inner, path)] if value else [path]
        if is_dataclass(value):
            return [
                found for item in fields(value) for found in unset(getattr(value, item.name), f"{path}.{item.name}")
            ]
        return [path] if value is None or value == "" or value == {} else []

    assert unset(everything(), "") == [".stable.kept_until", ".canary.kept_until", ".traffic.gateway.grpc.grpc"]


def test_the_definition_knows_every_field_that_is_written() -> None:
    assert status_problems(dump_status(everything())) == []


def test_every_field_of_the_definition_is_written() -> None:
    def missing(schema_: Json, value: Any, path: str) -> list[str]:
        if schema_["type"] == "array":
            return missing(schema_["items"], value[0], f"{path}[]")
        names = schema_.get("properties", {})
        absent = [f"{path}.{name}" for name in names if name not in value]
        return absent + [
            found
            for name, inner in names.items()
            if name in value
            for found in missing(inner, value[name], f"{path}.{name}")
        ]

    assert missing(schema("status"), dump_status(everything()), "") == []


def test_the_definition_would_notice_a_field_it_does_not_know() -> None:
    raw = dump_status(everything())
    raw["rollout"]["surprise"] = 1
    assert status_problems(raw) != []


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(Status(last_failure=Failure("", "Crashed", "exit code 1", NOW)), id="failure of a resolver"),
        pytest.param(Status(last_failure=Failure("0123456789", "Unschedulable", "", NOW)), id="failure without words"),
        pytest.param(Status(rejected=Rejected("0123456789", "Unschedulable", "", NOW)), id="rejected without words"),
        pytest.param(
            Status(conditions=(Condition("Stalled", "True", "Crashed", "", NOW),)), id="condition without words"
        ),
    ],
)
def test_an_empty_text_is_kept_where_one_is_required(status: Status) -> None:
    raw = dump_status(status)
    assert parse_status(raw) == status
    assert status_problems(raw) == []


def test_history_keeps_the_newest() -> None:
    status = Status()
    for index in range(HISTORY_LIMIT + 5):
        status = status.recorded(Record(NOW + index, "Started"))
    assert len(status.history) == HISTORY_LIMIT
    assert [record.time - NOW for record in status.history] == [24 - index for index in range(HISTORY_LIMIT)]


def test_times_are_written_as_the_api_server_does() -> None:
    assert rfc3339(1_750_000_000.25) == "2025-06-15T15:06:40.250000Z"
    assert parse_time("2025-06-15T15:06:40.250000Z") == 1_750_000_000.25
    assert parse_time("2025-06-15T15:06:40Z") == 1_750_000_000.0


def test_a_condition_has_whole_seconds() -> None:
    raw = dump_status(Status(conditions=(Condition("Ready", "True", "Serving", "It answers.", 1_750_000_000.75),)))
    assert raw["conditions"][0]["lastTransitionTime"] == "2025-06-15T15:06:40Z"


def test_a_condition_is_found_by_its_type() -> None:
    ready = Condition("Ready", "True", "Serving", "It answers.", NOW)
    assert Status(conditions=(ready,)).condition("Ready") == ready
    assert Status(conditions=(ready,)).condition("Stalled") is None
