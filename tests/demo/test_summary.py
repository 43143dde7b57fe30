"""The closing figures: verdicts out of a status history, harm out of the traffic's counts."""

from typing import Any

import pytest
from demo.summary import Verdict, decided_at, summarise, verdict


def record(time: str, decision: str, **more: Any) -> dict[str, Any]:
    return {"time": f"2026-01-01T00:{time}Z", "decision": decision, "reason": "", "metrics": [], **more}


ACCURACY = {"name": "accuracy", "canary": {"failures": 40, "trials": 260}}
ERRORS = {"name": "errors", "canary": {"failures": 0, "trials": 300}}
HISTORY = [
    record(
        "05:20.250000",
        "RolledBack",
        reason="LessAccurate",
        fromRevision="ccc",
        toRevision="bbb",
        metrics=[ERRORS, ACCURACY],
    ),
    record("05:04.000000", "Advanced", toRevision="ccc"),
    record("05:00.000000", "Started", fromRevision="bbb", toRevision="ccc"),
    record("02:30.000000", "Promoted", reason="NonInferior", fromRevision="aaa", toRevision="bbb"),
    record("01:00.000000", "Started", fromRevision="aaa", toRevision="bbb"),
    record("00:00.000000", "Started", toRevision="aaa"),
]
STATS = {
    "sent": 10_000,
    "failed": 0,
    "late": 0,
    "p99": 12.3,
    "feedback": {"accepted": 9_990},
    "by_revision": {
        "aaa": {"n": 4000, "wrong": 280, "first_seen": 0, "last_seen": 0},
        "bbb": {"n": 5000, "wrong": 50, "first_seen": 0, "last_seen": 0},
        "ccc": {"n": 300, "wrong": 45, "first_seen": 0, "last_seen": 1_767_225_921_000},
    },
}


def test_a_promotion_is_found_by_the_revision_that_it_promoted() -> None:
    assert verdict(HISTORY, "bbb", "better") == Verdict("better", "Promoted", "NonInferior", 90.0, 0)


def test_a_rollback_is_found_by_the_revision_that_it_stopped() -> None:
    found = verdict(HISTORY, "ccc", "harmful")
    assert found == Verdict("harmful", "RolledBack", "LessAccurate", 20.25, 260)


@pytest.mark.parametrize("revision", ["aaa", "ddd"])
def test_a_revision_without_an_end_has_no_verdict(revision: str) -> None:
    assert verdict(HISTORY, revision, "any") is None


def test_a_rollout_that_goes_on_has_no_verdict() -> None:
    assert verdict(HISTORY[1:], "ccc", "harmful") is None


def test_the_harm_is_what_the_stable_model_would_not_have_done() -> None:
    rolled_back_at = decided_at(HISTORY, "RolledBack")
    summary = summarise(STATS, [], stable="bbb", harmful="ccc", rolled_back_at=rolled_back_at)
    assert (summary.harmful_answers, summary.harmful_wrong) == (300, 45)
    assert summary.extra_wrong == pytest.approx(45 - 300 * 50 / 5000)
    assert summary.seconds_to_last_harmful_answer == pytest.approx(0.75)


def test_a_harmful_model_that_never_answered_did_no_harm() -> None:
    summary = summarise(STATS, [], stable="bbb", harmful="eee", rolled_back_at=0.0)
    assert (summary.harmful_answers, summary.harmful_wrong, summary.extra_wrong) == (0, 0, 0.0)


def test_the_summary_tells_every_figure() -> None:
    verdicts = [Verdict("harmful", "RolledBack", "LessAccurate", 20.25, 260)]
    text = "\n".join(summarise(STATS, verdicts, "bbb", "ccc", decided_at(HISTORY, "RolledBack")).lines())
    for figure in ("10,000", "9,990", "12 ms", "300 answers, 45 of them wrong", "about 3 wrong", "+0.8 s", "20 s"):
        assert figure in text
