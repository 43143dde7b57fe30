"""What is counted of pairs becomes evidence: in whatever pieces, as text and back, and under margins that change."""

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.definition import make_spec

from serin_operator.api.spec import Analysis
from serin_operator.decide import analysis, pairs
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import pair_keys
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.pairs import Pairs, Totals

STABLE, CANARY = "a" * 10, "b" * 10
POD = "canary-0/1750000000"
LEVELS = {"alpha": 0.05, "beta": 0.05}


def spec(window: str = "0s", **changes: float) -> Analysis:
    metrics = [{"name": "accuracy", "margin": 0.02, **changes}]
    return make_spec(analysis={"metrics": metrics, "labelWindow": window}).analysis


# Labelled: same and right, same and wrong, only the canary wrong, only stable wrong, both wrong; then same, different.
Cells = tuple[int, int, int, int, int, int, int]
cells = st.tuples(*[st.integers(0, 60)] * 7)


def counted(found: Pairs, *blocks: Cells) -> Pairs:
    for right, wrong, only_canary, only_stable, both, same, different in blocks:
        settled = only_canary + only_stable + both
        labelled = right + wrong + settled
        counts = (
            Counts(settled + different, labelled + same + different),
            Counts(only_canary, settled),
            Counts(wrong + both + only_canary, labelled),
            Counts(wrong + both + only_stable, labelled),
        )
        keys = pair_keys(STABLE)
        found = pairs.counted(found, {key: (count, Counts()) for key, count in zip(keys, counts, strict=True)})
    return found


@given(st.lists(cells, min_size=1, max_size=4))
@settings(deadline=None)
def test_how_looks_group_and_order_pairs_changes_nothing_but_when_harm_may_begin(blocks: list[Cells]) -> None:
    start = pairs.start(spec(), STABLE)
    together = pairs.numbers(counted(start, *blocks), **LEVELS).get("accuracy")
    for order in itertools.islice(itertools.permutations(blocks), 6):
        found = counted(start, *order)
        numbers = pairs.numbers(found, **LEVELS)["accuracy"]
        assert together is not None
        assert numbers.log_e_non_inferior == pytest.approx(together.log_e_non_inferior, abs=1e-6)
        assert numbers.totals.numbers == together.totals.numbers
        assert numbers.low <= numbers.high


def test_totals_tell_whose_answers_are_wrong() -> None:
    totals = counted(pairs.start(spec(), STABLE), (50, 5, 3, 2, 1, 20, 4)).totals
    assert totals.numbers == Totals(85, 10, 61, 6, 9, 8, 3).numbers
    assert (totals.only_stable, totals.waiting) == (2, 4)


def odds(*blocks: Cells) -> tuple[float, float]:
    """That it is worse, and that it is not by the margin."""
    numbers = pairs.numbers(counted(pairs.start(spec(), STABLE), *blocks), **LEVELS)["accuracy"]
    return math.exp(numbers.log_e_worse), math.exp(numbers.log_e_non_inferior)


def test_equal_answers_need_no_label() -> None:
    worse, good = odds((0, 0, 0, 0, 0, 800, 2))
    assert good > 20 and worse < 1.1


def test_a_difference_without_a_label_counts_against_the_canary() -> None:
    unlabelled, labelled = odds((0, 0, 0, 0, 0, 900, 12))[1], odds((0, 0, 6, 6, 0, 900, 0))[1]
    assert unlabelled < labelled
    assert labelled > 20


def test_labels_of_a_part_of_all_requests_suffice_too() -> None:
    """A tenth of the requests get a label, and answers differ in 4 %: all pairs alone would never show anything."""
    _, good = odds((1560, 80, 32, 32, 0, 14800, 580))
    assert good > 20


def test_a_canary_that_is_wrong_where_answers_differ_is_worse() -> None:
    worse, good = odds((100, 5, 14, 1, 0, 300, 4))
    assert worse > 20 and good < 1


def test_without_any_pair_there_is_no_evidence() -> None:
    worse, good = odds()
    assert worse == pytest.approx(1) and good == pytest.approx(1)


def snapshot(scale: int = 1, window: float = 0.0) -> Snapshot:
    """window: the age at which pairs are counted; more have been seen then."""
    sizes = ((10, 500), (2, 6), (30, 400), (28, 400))
    samples = {
        key: {CANARY: {POD: Counts(failures * scale, trials * scale)}}
        for key, (failures, trials) in zip(pair_keys(STABLE, window), sizes, strict=True)
    }
    if window:
        samples[pair_keys(STABLE)[0]] = {CANARY: {POD: Counts(80 * scale, 4000 * scale)}}
    samples["requests"] = {CANARY: {POD: Counts(0, 500 * scale)}}
    return Snapshot(samples=samples, processes=frozenset({POD}), pods=frozenset({"canary-0"}))


def begun(asked: Analysis) -> str:
    empty = Snapshot(processes=frozenset({POD}), pods=frozenset({"canary-0"}))
    return analysis.begin(asked, empty, CANARY, STABLE, 1_750_000_000.0, shadow=True)


def judged(asked: Analysis, state: str, seen: Snapshot, *, mirror: int = 50) -> analysis.Judgement:
    return analysis.judge(asked, state, seen, CANARY, STABLE, 1_750_000_060.0, weight=None, mirror=mirror)


def test_the_state_goes_through_the_status_and_counts_nothing_twice() -> None:
    first = judged(spec(), begun(spec()), snapshot())
    again = judged(spec(), first.state, snapshot())
    assert again.state == first.state
    more = judged(spec(), first.state, snapshot(2))
    assert more.canary_trials == {"accuracy": 2 * (400 + 500)}
    assert len(more.state) < 4096


def test_pairs_that_are_counted_at_an_age_are_evidence_as_those_that_count_as_they_come() -> None:
    at_once = judged(spec(), begun(spec()), snapshot())
    aged = judged(spec("60s"), begun(spec("60s")), snapshot(window=60))
    assert aged.reports == at_once.reports
    assert aged.canary_trials == at_once.canary_trials
    differ = [next(r.message for r in found.remarks if r.reason == "AnswersDiffer") for found in (at_once, aged)]
    assert differ[0].startswith("2.0 % of 500 requests") and "drawn" not in differ[0]
    assert differ[1].startswith("2.0 % of 4,000 requests") and "500 of them, drawn by chance" in differ[1]


def with_labels_of_arms(seen: Snapshot) -> Snapshot:
    """Beside what pairs count: labels of both arms at the age of a minute, of far fewer of the canary's predictions."""
    accuracy = {CANARY: {POD: Counts(300, 400)}, STABLE: {"stable-0/1750000000": Counts(30, 400)}}
    coverage = {CANARY: {POD: Counts(400, 90_000)}, STABLE: {"stable-0/1750000000": Counts(400, 800)}}
    return replace(seen, samples={**seen.samples, "accuracy@60": accuracy, "coverage@60": coverage})


def after_three_looks(seen: Snapshot) -> analysis.Judgement:
    """From the second on, both arms can have labels of that age."""
    asked, state = spec("60s"), begun(spec("60s"))
    for now in (1_750_000_120.0, 1_750_000_180.0, 1_750_000_240.0):
        found = analysis.judge(asked, state, seen, CANARY, STABLE, now, weight=None, mirror=50)
        state, seen = found.state, doubled(seen)
    return found


def test_pairs_take_the_place_of_labels_arm_by_arm_and_of_their_coverage() -> None:
    """Both answers of a pair have its label; and only a sample of pairs has any."""
    found = after_three_looks(with_labels_of_arms(snapshot(window=60)))
    assert found.reports == after_three_looks(snapshot(window=60)).reports
    assert {remark.reason for remark in found.remarks} == {"AnswersDiffer"}


def test_labels_count_arm_by_arm_where_servers_count_no_pairs_at_an_age() -> None:
    """As those of earlier versions."""
    found = after_three_looks(with_labels_of_arms(snapshot()))
    assert found.reports[0].verdict == "Worse"
    assert "requests that both answered" not in found.reports[0].message
    assert {remark.reason for remark in found.remarks} == {"AnswersDiffer", "LabelCoverageDiffers"}


def test_after_a_shadow_labels_are_compared_when_the_first_since_then_are_old_enough() -> None:
    """Until then only the stable revision has any: nobody carries them for the copies that the canary answered."""
    asked = spec("60s")
    seen, state = with_labels_of_arms(snapshot(window=60)), begun(asked)
    noticed = []
    for seconds in (60, 120, 150, 180, 240, 300):
        now, mirror = 1_750_000_000.0 + seconds, 50 if seconds < 120 else 0
        found = analysis.judge(asked, state, seen, CANARY, STABLE, now, weight=None, mirror=mirror)
        state, seen = found.state, doubled(seen)
        noticed.append("LabelCoverageDiffers" in {remark.reason for remark in found.remarks})
    assert noticed == [False, False, False, False, False, True]


def test_a_rate_is_that_of_several_parts_of_the_label_window_which_count_at_once() -> None:
    """Of a day 333 pairs every 24 minutes: 13.9 a minute, and neither none nor as many as in the minute of a part."""
    asked = spec("24h")
    state, told = begun(asked), []
    for minutes in range(2, 480, 2):
        parts = minutes // 24
        seen = snapshot(window=86_400)
        aged = zip(pair_keys(STABLE, 86_400), ((3, 333), (1, 3), (20, 300), (20, 300)), strict=True)
        samples = {key: {CANARY: {POD: Counts(parts * bad, parts * all_of)}} for key, (bad, all_of) in aged}
        samples["requests"] = {CANARY: {POD: Counts(0, minutes)}}
        now = 1_750_000_000.0 + 60 * minutes
        seen = replace(seen, samples=samples)
        found = analysis.judge(asked, state, seen, CANARY, STABLE, now, weight=None, mirror=50)
        state = found.state
        told += [gate.per_minute for gate in found.prospects if minutes > 240]
    assert len(told) == 119
    assert min(told) > 0.7 * 13.9 and max(told) < 1.4 * 13.9


def test_after_an_edit_of_the_label_window_labels_are_compared_when_both_arms_can_have_some() -> None:
    """The canary's server keeps pairs for the new window from then on; stable's have labels of that age already."""
    asked = make_spec(
        analysis={"metrics": [{"name": "recall", "class": "7", "margin": 0.02}], "labelWindow": "60s"}
    ).analysis
    seen, state = snapshot(window=60), begun(asked)
    for seconds in range(60, 900, 60):
        if seconds == 600:
            asked = replace(asked, label_window=300.0)
        samples = {
            "requests": {CANARY: {POD: Counts(0, seconds)}},
            "recall:7@300": {STABLE: {"stable-0/1750000000": Counts(seconds, 10 * seconds)}},
        }
        now = 1_750_000_000.0 + seconds
        found = analysis.judge(
            asked, state, replace(seen, samples=samples), CANARY, STABLE, now, weight=None, mirror=50
        )
        state = found.state
    assert found.reports[0].stable.trials == 0


def doubled(seen: Snapshot) -> Snapshot:
    samples = {
        key: {arm: {one: at + at for one, at in of_arm.items()} for arm, of_arm in of_key.items()}
        for key, of_key in seen.samples.items()
    }
    return replace(seen, samples=samples)


def test_another_label_window_begins_the_test_anew() -> None:
    first = judged(spec(), begun(spec()), snapshot())
    aged = analysis.recall(spec("60s"), first.state, None)
    assert aged.reports[0].odds_non_inferior == pytest.approx(1)
    back = judged(spec("60s"), first.state, snapshot(window=60))
    assert next(r.message for r in back.remarks if r.reason == "AnswersDiffer").count("4,000") == 1


def test_a_state_of_an_earlier_version_is_read() -> None:
    """It had no window, and all pairs that were seen were those of the test."""
    asked = spec()
    first = judged(asked, begun(asked), snapshot())
    value = json.loads(first.state)
    assert value.pop("aged") == [0.0, None, 10, 500, None]
    assert analysis.recall(asked, json.dumps(value), None, mirror=50).reports == first.reports
    again = judged(asked, json.dumps(value), snapshot())
    assert again.remarks == first.remarks


def test_a_margin_that_is_edited_starts_the_test_again() -> None:
    asked = spec()
    first = judged(asked, begun(asked), snapshot())
    wider = analysis.recall(spec(margin=0.05), first.state, None)
    assert wider.reports[0].odds_worse == pytest.approx(1)
    same = analysis.recall(asked, first.state, None, mirror=50)
    assert same.reports == first.reports


def test_metrics_come_and_go() -> None:
    asked = make_spec(
        analysis={
            "metrics": [
                {"name": "strict", "type": "accuracy", "margin": 0.01},
                {"name": "accuracy", "margin": 0.02},
            ]
        }
    ).analysis
    one = judged(spec(), begun(spec()), snapshot())
    both = analysis.recall(asked, one.state, None)
    assert [report.name for report in both.reports] == ["strict", "accuracy"]
    kept = next(report for report in both.reports if report.name == "accuracy")
    assert kept.odds_non_inferior == one.reports[0].odds_non_inferior
    none = make_spec(analysis={"metrics": [{"name": "errors", "margin": 0.02}]}).analysis
    assert judged(none, one.state, snapshot(2)).reports[0].name == "errors"


def test_after_the_shadow_its_evidence_stays_and_pairs_count_no_more() -> None:
    first = judged(spec(), begun(spec()), snapshot())
    stepped = analysis.step(spec(), first.state)
    later = judged(spec(), stepped, snapshot(3), mirror=0)
    assert later.reports[0].odds_non_inferior == pytest.approx(first.reports[0].odds_non_inferior)
    assert later.exposed > first.exposed == 0


def test_classes_that_move_are_named_when_chance_does_not_explain_it() -> None:
    moves = {"cat": Counts(40, 44), "dog": Counts(5, 44), "emu": Counts(10, 20)}
    assert pairs.moved(moves, 20) == [("cat", 40, 4), ("dog", 5, 39)]
    assert pairs.moved({"cat": Counts(3, 5), "dog": Counts(2, 5)}, 20) == []
    assert pairs.moved({}, 20) == []


def test_the_difference_is_that_of_the_labelled_pairs_once_there_are_some() -> None:
    numbers = pairs.numbers(counted(pairs.start(spec(), STABLE), (36, 1, 11, 0, 0, 126, 26)), **LEVELS)["accuracy"]
    assert numbers.difference == pytest.approx(11 / 48)
    without = pairs.numbers(counted(pairs.start(spec(), STABLE), (0, 0, 0, 0, 0, 99, 1)), **LEVELS)["accuracy"]
    assert without.difference == 0


def test_a_forecast_counts_the_pairs_that_are_tested() -> None:
    """At an age those are a sample, and labels of the arms are many more."""
    asked = spec("60s")
    (gate,) = judged(asked, begun(asked), with_labels_of_arms(snapshot(window=60))).prospects
    assert gate.paired and gate.per_minute == pytest.approx(500)
    assert gate.answers is not None and gate.answers.labelled == pytest.approx(400 / 500)
