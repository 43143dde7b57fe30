"""The analysis over looks: what is counted and what is not, what it asks for, and its text in `status`."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.decide.lab import ARMS, CANARY, STABLE, START, Lab, metric, pod, policy

from serin_operator.api.spec import Goal, Metric, Role
from serin_operator.decide import analysis, tracks
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import REQUESTS, class_key, coverage_key, metric_key
from serin_operator.decide.verdict import Action, Finding

GOOD = ((5, 100), (45, 900))
BAD = ((25, 100), (45, 900))
GREAT = ((0, 100), (90, 900))
FAIR = ((6, 100), (45, 900))


def seen(lab: Lab, name: str = "errors") -> tuple[int, int, int, int]:
    """What the metric's report counts."""
    judged = analysis.recall(lab.analysis, lab.state, None)
    report = next(report for report in judged.reports if report.name == name)
    return report.canary.failures, report.canary.trials, report.stable.failures, report.stable.trials


# --- counting


def test_history_is_not_counted_and_news_is() -> None:
    lab = Lab(policy()).count("errors", (40, 1000), (50, 9000)).begin()
    lab.count("errors", (1, 10), (2, 90)).look()
    assert seen(lab) == (1, 10, 2, 90)


def test_a_process_that_was_read_without_the_counter_started_at_zero() -> None:
    lab = Lab(policy()).begin()
    lab.count("errors", (1, 10), (2, 90)).look()
    assert seen(lab) == (1, 10, 2, 90)


def test_a_process_that_is_older_but_was_unread_then_starts_at_its_first_reading() -> None:
    lab = Lab(policy())
    lab.state = analysis.begin(lab.analysis, replace(lab.snapshot, processes=frozenset()), *ARMS, START)
    lab.count("errors", (40, 1000), (50, 9000)).look()
    lab.count("errors", (1, 10), (2, 90)).look()
    assert seen(lab) == (1, 10, 2, 90)


def test_pods_that_are_gone_are_forgotten() -> None:
    lab = Lab(policy(), pods=2).begin()
    lab.count("errors", (1, 10), (2, 90), number=1).look()
    lab.pods = 1
    del lab.samples["errors"][CANARY], lab.samples["errors"][STABLE]
    lab.look()
    known = {series for pair in tracks.load(lab.state).ledgers.values() for one in pair for series in one.counted}
    assert known == {pod(CANARY), pod(STABLE)}
    assert seen(lab) == (1, 10, 2, 90)


COUNTS = st.tuples(st.integers(0, 20), st.integers(0, 80)).map(lambda each: (each[0], each[0] + each[1]))
KEYS = ["errors", "latency@0.25", "accuracy@0", "recall:7@0", REQUESTS]
LOOKS = st.lists(st.dictionaries(st.sampled_from(KEYS), st.tuples(COUNTS, COUNTS), min_size=1), min_size=1, max_size=5)
SOME = policy(metric(), metric("latency", bound=0.1), metric("accuracy"), metric("recall", label="7"), warm_up=1)


def fed(lab: Lab, looks: list[dict[str, tuple[tuple[int, int], tuple[int, int]]]]) -> Lab:
    for counts in looks:
        for key, (canary, stable) in counts.items():
            lab.count(key, canary, stable)
        lab.look(weight=10)
    return lab


@settings(max_examples=30)
@given(LOOKS)
def test_the_same_snapshot_again_changes_nothing(
    looks: list[dict[str, tuple[tuple[int, int], tuple[int, int]]]],
) -> None:
    lab = fed(Lab(SOME).begin(), looks)
    lab.state = analysis.step(SOME, lab.state)
    fed(lab, looks[:1])
    before = lab.state
    judged = lab.look(seconds=30, weight=10)
    assert judged.state == before
    assert lab.look(seconds=0).state == before


@settings(max_examples=30)
@given(LOOKS)
def test_the_text_is_read_as_what_was_written(looks: list[dict[str, tuple[tuple[int, int], tuple[int, int]]]]) -> None:
    lab = fed(Lab(SOME).begin(), looks)
    assert tracks.dump(tracks.load(lab.state)) == lab.state
    judged = analysis.recall(SOME, lab.state, None)
    assert judged.reports == analysis.judge(SOME, lab.state, lab.snapshot, *ARMS, lab.now, weight=None).reports


@settings(max_examples=30)
@given(LOOKS, st.data())
def test_fewer_looks_count_the_same(
    looks: list[dict[str, tuple[tuple[int, int], tuple[int, int]]]], data: st.DataObject
) -> None:
    chosen = replace(SOME, warm_up=0)
    often, seldom = fed(Lab(chosen).begin(), looks), Lab(chosen).begin()
    for counts in looks:
        for key, (canary, stable) in counts.items():
            seldom.count(key, canary, stable)
        if data.draw(st.booleans()):
            seldom.look()
    seldom.look()
    assert [seen(often, m.name) for m in SOME.metrics] == [seen(seldom, m.name) for m in SOME.metrics]
    assert tracks.load(often.state).exposed == tracks.load(seldom.state).exposed


# --- what is not tested


def test_the_first_looks_after_a_step_are_counted_but_not_tested_in_both_arms() -> None:
    lab = Lab(policy(warm_up=2)).begin()
    lab.state = analysis.step(lab.analysis, lab.state)
    trials = []
    for _ in range(4):
        lab.count("errors", (10, 10), (0, 90)).count(REQUESTS, (0, 10), (0, 90)).look()
        trials.append(seen(lab)[1::2])
    assert trials == [(0, 0), (0, 0), (10, 90), (20, 180)]
    assert tracks.load(lab.state).exposed == 40


def test_a_look_that_shows_nothing_new_is_no_warm_up() -> None:
    lab = Lab(policy(warm_up=1)).begin()
    lab.state = analysis.step(lab.analysis, lab.state)
    lab.look()
    lab.count("errors", (1, 10), (1, 90)).look()
    assert seen(lab) == (0, 0, 0, 0)


def test_labels_with_a_window_are_compared_only_when_both_arms_can_have_some() -> None:
    key = "accuracy@60"
    lab = Lab(policy(metric("accuracy"), window=60.0)).begin()
    for _ in range(6):
        lab.count(key, (0, 0), (9, 90)).look()
    assert seen(lab, "accuracy") == (0, 0, 0, 0)
    lab.count(key, (1, 10), (9, 90)).look()
    assert seen(lab, "accuracy") == (1, 10, 9, 90)


# --- verdicts


@pytest.mark.parametrize(
    ("metrics", "blocks", "action"),
    [
        ([metric()], [GOOD], Action.PROMOTE),
        ([metric()], [BAD], Action.ROLL_BACK),
        ([metric(role=Role.GUARD), metric("latency", role=Role.GATE)], [FAIR, GOOD], Action.PROMOTE),
        ([metric(role=Role.GUARD), metric("latency", role=Role.GATE)], [BAD, GOOD], Action.ROLL_BACK),
        ([metric(role=Role.GATE), metric("latency")], [BAD, GOOD], Action.WAIT),
        ([metric(role=Role.OBSERVE), metric("latency")], [BAD, GOOD], Action.PROMOTE),
        ([metric(goal=Goal.SUPERIOR)], [GOOD], Action.WAIT),
        ([metric(goal=Goal.SUPERIOR)], [GREAT], Action.PROMOTE),
        ([metric(bound=0.1)], [GOOD], Action.PROMOTE),
        ([metric(bound=0.02)], [((5, 100), (9, 900))], Action.ROLL_BACK),
        ([metric(bound=0.02)], [((5, 100), (45, 900))], Action.WAIT),
    ],
)
def test_what_all_metrics_ask_for(
    metrics: list[Metric], blocks: list[tuple[tuple[int, int], tuple[int, int]]], action: Action
) -> None:
    lab = Lab(policy(*metrics)).begin()
    blocks_by_key = {metric_key(m, 0.0): block for m, block in zip(metrics, blocks, strict=True)}
    assert lab.repeat(30, blocks_by_key).verdict.action is action


def test_a_bound_that_both_break_is_told() -> None:
    lab = Lab(policy(metric(bound=0.02))).begin()
    judged = lab.repeat(30, {"errors": GOOD})
    assert judged.both_over == ("errors",)
    assert judged.reports[0].verdict == Finding.BOTH_OVER_BOUND
    assert [remark.reason for remark in judged.remarks] == ["StableOverBound"]
    assert "errors (5.0 % of 27,000, bound 2 %)" in judged.remarks[0].message


@pytest.mark.parametrize(
    ("one", "block", "reason"),
    [
        (metric(), BAD, "MoreErrors"),
        (metric("latency"), BAD, "Slower"),
        (metric("accuracy"), BAD, "LessAccurate"),
        (metric("precision", label="7"), BAD, "LessPrecise"),
        (metric("recall", label="7"), BAD, "LowerRecall"),
        (metric("f1", label="7"), BAD, "LowerF1"),
        (metric("regression"), BAD, "LargerErrors"),
        (metric("restarts"), BAD, "MoreRestarts"),
        (metric("custom"), BAD, "WorseMetric"),
        (metric("recall", label="7", margin=0.2, tolerance=0.1, bound=0.02), ((5, 100), (9, 900)), "OverBound"),
    ],
)
def test_the_reason_for_a_rollback(one: Metric, block: tuple[tuple[int, int], tuple[int, int]], reason: str) -> None:
    lab = Lab(policy(one))
    lab.unclocked = frozenset(f"custom/{arm}0" for arm in ARMS)
    key = metric_key(one, 0.0)
    lab.count(key, (0, 0), (0, 0)).begin()
    told = lab.repeat(30, {key: block}).reason_for_rollback()
    assert told[0] == reason
    assert told[1].startswith(f"{one.name}: ")


# --- averages over classes


def classes(of: Metric, *labels: str, window: float = 0.0) -> list[str]:
    return [class_key(of, label, window) for label in labels]


def test_an_average_weighs_its_classes_alike() -> None:
    """A rare class gets worse; of all labels together hardly more are wrong."""
    recall = metric("recall", margin=0.1)
    lab = Lab(policy(recall))
    common, rare = classes(recall, "cat", "dog")
    lab.count(common, (0, 1), (0, 1)).count(rare, (0, 1), (0, 1)).begin()
    judged = lab.repeat(40, {common: ((50, 1000), (450, 9000)), rare: ((5, 10), (5, 90))})
    assert judged.verdict.action is Action.ROLL_BACK
    assert judged.reports[0].difference == pytest.approx((0.5 - 5 / 90) / 2, abs=0.01)


def test_the_classes_of_an_average_are_those_known_at_the_begin() -> None:
    recall = metric("recall")
    lab = Lab(policy(recall))
    cat, dog, emu = classes(recall, "cat", "dog", "emu")
    lab.count(cat, (0, 1), (0, 1)).count(dog, (0, 1), (0, 1)).begin()
    lab.count(cat, *GOOD).count(dog, *GOOD).look()
    judged = lab.count(emu, *BAD).look()
    assert seen(lab, "recall") == (10, 200, 90, 1800)
    assert [remark.reason for remark in judged.remarks] == ["NewClasses"]
    assert "recall: emu" in judged.remarks[0].message
    assert [remark.reason for remark in analysis.recall(lab.analysis, lab.state, None).remarks] == ["NewClasses"]


def test_an_average_waits_for_two_classes_and_counts_from_then_on() -> None:
    recall = metric("recall")
    lab = Lab(policy(recall))
    cat, dog = classes(recall, "cat", "dog")
    lab.begin().count(cat, *GOOD).look()
    judged = lab.count(dog, *GOOD).look()
    assert judged.reports[0].verdict == Finding.NO_DATA
    lab.count(cat, *GOOD).count(dog, *GOOD).look()
    assert seen(lab, "recall") == (10, 200, 90, 1800)


def test_an_average_tells_which_class_lacks_data() -> None:
    recall = metric("recall")
    lab = Lab(policy(recall))
    cat, dog = classes(recall, "cat", "dog")
    lab.count(cat, (0, 1), (0, 1)).count(dog, (0, 1), (0, 1)).begin()
    judged = lab.count(cat, *GOOD).count(dog, (0, 0), (1, 10)).look()
    assert judged.reports[0].message == "no data of class dog from the canary revision yet."


# --- the traffic's share, the labels' coverage, overdispersion


@pytest.mark.parametrize(
    ("canary", "weight", "mismatch"), [(100, 10, False), (130, 10, True), (70, 10, True), (130, None, False)]
)
def test_the_canarys_share_of_the_requests(canary: int, weight: int | None, mismatch: bool) -> None:
    lab = Lab(policy()).begin()
    judged = lab.repeat(20, {REQUESTS: ((0, canary), (0, 1000 - canary))}, weight=weight)
    assert judged.share_mismatch is mismatch
    assert [remark.reason for remark in judged.remarks] == ["TrafficShareMismatch"] * mismatch
    if mismatch:
        observed = f"{canary / 10:.1f} % of 20,000 requests reached the canary where 10.0 % is configured"
        assert observed in judged.remarks[0].message


def test_the_configured_share_is_an_average_over_weights() -> None:
    lab = Lab(policy()).begin()
    lab.repeat(10, {REQUESTS: ((0, 300), (0, 700))}, weight=10)
    judged = lab.repeat(10, {REQUESTS: ((0, 500), (0, 500))}, weight=50)
    assert "40.0 % of 20,000 requests reached the canary where 30.0 % is configured" in judged.remarks[0].message


@pytest.mark.parametrize(("labels", "differs"), [(50, False), (80, True)])
def test_the_coverage_of_labels_is_compared(labels: int, differs: bool) -> None:
    """Trials are predictions and labels, so 50 labels of 100 predictions are 50 of 150."""
    lab = Lab(policy(metric("accuracy"), window=10.0)).begin()
    key = coverage_key(10.0)
    judged = lab.repeat(30, {key: ((labels, 100 + labels), (450, 1350))})
    assert [remark.reason for remark in judged.remarks] == ["LabelCoverageDiffers"] * differs
    if differs:
        assert (
            "80.0 % of the canary's predictions got a label in time, and 50.0 % of stable's"
            in judged.remarks[0].message
        )
    assert [report.name for report in judged.reports] == ["accuracy"]


def test_labels_at_arrival_have_no_coverage() -> None:
    lab = Lab(policy(metric("accuracy"))).begin()
    assert [row.name for row in tracks.load(lab.state).plain.rows] == ["accuracy"]


# --- problems


def test_a_source_that_is_down_leaves_everything_as_it_was() -> None:
    lab = Lab(policy()).begin()
    lab.repeat(5, {"errors": GOOD})
    before = lab.state
    judged = lab.look(snapshot=replace(lab.snapshot, problem="it is down"))
    assert (judged.problem, judged.state, lab.state) == ("it is down", before, before)
    assert judged.reports == analysis.recall(lab.analysis, before, None).reports


def test_an_unread_pod_is_a_problem_and_the_others_count() -> None:
    lab = Lab(policy()).begin().count("errors", *GOOD)
    judged = lab.look(snapshot=replace(lab.snapshot, unread=("iris-5ab1e0-1",)))
    assert judged.problem == "no counters from iris-5ab1e0-1"
    assert seen(lab) == (5, 100, 45, 900)


def test_a_custom_metric_that_falls_is_told_and_the_others_count() -> None:
    lab = Lab(policy(metric(), metric("custom")))
    lab.unclocked = frozenset(f"custom/{arm}0" for arm in ARMS)
    lab.count("custom:refunds", (0, 100), (0, 100)).count("errors", (0, 0), (0, 0)).begin()
    lab.samples["custom:refunds"][CANARY]["custom/c0ffee0"] = Counts(0, 90)
    lab.count("custom:refunds", (0, 0), (1, 10)).count("errors", *GOOD)
    judged = lab.look()
    expected = "custom metric refunds is not a counter: a series of its queries went from 100 to 90"
    assert judged.problem == expected
    assert seen(lab) == (5, 100, 45, 900)
    assert seen(lab, "refunds") == (0, 0, 0, 0)
    assert lab.count("custom:refunds", (1, 20), (0, 0)).look().problem is None
    assert seen(lab, "refunds") == (1, 10, 1, 10)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"layout":0}', '{"layout":1}', '{"layout":1,"series":[],"keys":["a"],"arms":{}}'],
)
def test_something_else_than_a_state_is_refused(text: str) -> None:
    for call in (
        lambda: analysis.recall(policy(), text, None),
        lambda: analysis.judge(policy(), text, Lab(policy()).snapshot, *ARMS, START, weight=None),
        lambda: analysis.step(policy(), text),
        lambda: analysis.watch(policy(), text),
    ):
        with pytest.raises(ValueError, match=r"."):
            call()


@pytest.mark.parametrize("key", ["numbers", "keys", "series", "tests", "arms", "metrics", "counted"])
def test_a_state_that_lacks_something_is_refused(key: str) -> None:
    value = json.loads(Lab(policy(metric("latency", bound=0.1))).begin().count("errors", *GOOD).state)
    del value[key]
    with pytest.raises(ValueError, match="not a state of the analysis"):
        analysis.recall(policy(), json.dumps(value), None)


# --- edits while a rollout runs


def test_an_added_metric_starts_without_evidence_and_the_others_keep_theirs() -> None:
    lab = Lab(policy()).begin()
    lab.repeat(5, {"errors": GOOD, "latency@0.25": GOOD})
    lab.analysis = policy(metric("latency"), metric())
    assert analysis.recall(lab.analysis, lab.state, None).reports[0].verdict == Finding.NO_DATA
    lab.look()
    assert (seen(lab, "latency"), seen(lab)) == ((0, 0, 0, 0), (25, 500, 225, 4500))
    lab.repeat(1, {"errors": GOOD, "latency@0.25": GOOD})
    assert (seen(lab, "latency"), seen(lab)) == ((5, 100, 45, 900), (30, 600, 270, 5400))


def test_a_removed_metric_is_forgotten() -> None:
    lab = Lab(policy(metric(), metric("latency"))).begin()
    lab.repeat(5, {"errors": GOOD, "latency@0.25": BAD})
    lab.analysis = policy()
    judged = lab.look()
    assert [report.name for report in judged.reports] == ["errors"]
    assert "latency" not in lab.state


def test_another_latency_bound_is_another_test() -> None:
    lab = Lab(policy(metric("latency"))).begin()
    lab.repeat(5, {"latency@0.25": GOOD})
    lab.analysis = policy(metric("latency", slower_than=0.5))
    lab.look()
    assert seen(lab, "latency") == (0, 0, 0, 0)


def test_an_edited_margin_counts_at_once() -> None:
    lab = Lab(policy()).begin()
    assert lab.repeat(30, {"errors": GOOD}).verdict.action is Action.PROMOTE
    stricter = policy(metric(margin=0.001))
    assert analysis.recall(stricter, lab.state, None).verdict.action is Action.WAIT


def test_an_edited_bound_starts_again() -> None:
    lab = Lab(policy(metric(bound=0.5))).begin()
    assert lab.repeat(30, {"errors": GOOD}).verdict.action is Action.PROMOTE
    lab.analysis = policy(metric(bound=0.4))
    assert lab.look().verdict.action is Action.WAIT


# --- what a rollout and a forecast ask


def test_requests_exposure_and_excess() -> None:
    lab = Lab(policy()).begin()
    first = lab.look(seconds=0)
    assert (first.exposed, first.per_second, first.worst_excess, first.canary_trials) == (0, None, 1.0, {"errors": 0})
    judged = lab.repeat(30, {"errors": GOOD, REQUESTS: ((0, 100), (0, 900))})
    assert (judged.exposed, judged.canary_trials) == (3000, {"errors": 3000})
    assert judged.per_second == pytest.approx(100)
    assert judged.worst_excess == judged.reports[0].high


def test_the_worst_excess_is_that_of_the_worst_guard() -> None:
    lab = Lab(policy(metric(), metric("latency"), metric("accuracy", role=Role.GATE))).begin()
    assert lab.repeat(5, {"errors": GOOD}).worst_excess == 1.0
    judged = lab.repeat(30, {"errors": GOOD, "latency@0.25": FAIR})
    assert judged.worst_excess == judged.reports[1].high


def test_only_guards_that_count_requests_tell_of_harmed_ones() -> None:
    lab = Lab(policy(metric(), metric("restarts"))).begin()
    judged = lab.repeat(30, {"errors": GOOD})
    assert judged.worst_excess == judged.reports[0].high != 1.0


def test_only_metrics_that_decide_can_be_without_trials() -> None:
    lab = Lab(policy(metric(), metric("latency"), metric("accuracy", role=Role.OBSERVE))).begin()
    judged = lab.repeat(1, {"errors": GOOD})
    assert judged.without_new_trials({}) == ["latency"]
    assert judged.without_new_trials({"errors": 100}) == ["errors", "latency"]
    assert judged.without_new_trials({"errors": 90, "latency": 7}) == ["latency"]


def test_rates_follow_the_traffic_of_late() -> None:
    lab = Lab(policy()).begin()
    lab.repeat(60, {REQUESTS: ((0, 100), (0, 900))})
    judged = lab.repeat(60, {REQUESTS: ((0, 10), (0, 90))})
    assert judged.per_second == pytest.approx(10 + 90 * 0.135, rel=0.05)  # two time constants later


def test_every_gate_has_a_prospect() -> None:
    lab = Lab(
        policy(metric(), metric("latency", role=Role.GUARD), metric("accuracy", role=Role.GATE, bound=0.06))
    ).begin()
    judged = lab.repeat(1, {"errors": GOOD, "accuracy@0": GOOD})
    assert [gate.name for gate in judged.prospects] == ["errors", "accuracy"]
    errors, accuracy = judged.prospects
    assert errors.per_minute == pytest.approx(6000)
    assert errors.failure_rate == pytest.approx(46 / 910)
    assert errors.for_rollback is not None and accuracy.for_rollback is None
    assert accuracy.missing_under > 0 and errors.missing_under == 0


def test_an_average_over_unequal_classes_takes_longer() -> None:
    recall = metric("recall")
    lab = Lab(policy(recall))
    cat, dog = classes(recall, "cat", "dog")
    lab.count(cat, (0, 1), (0, 1)).count(dog, (0, 1), (0, 1)).begin()
    even = lab.repeat(20, {cat: ((5, 100), (45, 900)), dog: ((5, 100), (45, 900))}).prospects[0]
    assert even.phi == pytest.approx(1, rel=0.01)
    uneven = lab.repeat(200, {cat: ((500, 10000), (4500, 90000)), dog: ((0, 0), (0, 0))}).prospects[0]
    assert uneven.phi > 20


def test_the_state_of_ten_metrics_is_small() -> None:
    latencies = [metric("latency", name=f"latency-{i}", slower_than=0.1 * i) for i in range(1, 6)]
    ten = policy(
        metric(), *latencies, metric("accuracy"), metric("recall", label="fraud"), metric("restarts"), metric("custom")
    )
    lab = Lab(ten)
    lab.unclocked = frozenset(f"custom/{arm}0" for arm in ARMS)
    keys = [metric_key(each, 0.0) for each in ten.metrics]
    for key in [*keys, REQUESTS]:
        lab.count(key, (123_456, 7_654_321), (1_234_567, 87_654_321))
    lab.begin()
    for look in range(60):
        extra = (look * 7919) % 613
        for shift, key in enumerate(keys):
            lab.count(key, (137 + shift + extra % 17, 10_000 + extra), (1_191 + extra % 23, 90_000 - extra))
        lab.count(REQUESTS, (0, 10_000 + extra), (0, 90_000 - extra)).look(weight=10)
    assert len(lab.state) <= 4096


def test_what_stable_counted_before_tells_its_rate_to_the_first_test() -> None:
    recall = metric("recall")
    lab = Lab(policy(metric(), recall))
    cat, dog = classes(recall, "cat", "dog")
    lab.count("errors", (1, 2), (30, 600)).count(cat, (0, 0), (4, 40)).count(dog, (0, 0), (2, 50)).begin()
    state = tracks.load(lab.state)
    assert state.plain.tests.history.tolist() == [[[30, 600]]]
    assert state.macros[0].test.history.tolist() == [[[4, 40], [2, 50]]]
    assert seen(lab) == (0, 0, 0, 0)
