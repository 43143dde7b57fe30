"""The live view: what a frame takes from status and counts, and how it is shown."""

import io
from typing import Any

import pytest
from demo.view import PlainScreen, frame, line, panel
from rich.console import Console

STATUS: dict[str, Any] = {
    "phase": "Progressing",
    "weight": 25,
    "stable": {"revision": "aaa", "version": "first"},
    "canary": {"revision": "bbb", "version": "better"},
    "conditions": [{"type": "Reconciling", "status": "True", "message": "step 2 of 3 [/2 min]"}],
    "metrics": [
        {
            "name": "accuracy",
            "verdict": "Undecided",
            "canary": {"failures": 3, "trials": 200},
            "stable": {"failures": 120, "trials": 1800},
            "oddsWorse": 0.25,
            "oddsNonInferior": 7.5,
            "message": "more is needed",
        }
    ],
}
STATS = {
    "sent": 2100,
    "failed": 0,
    "late": 0,
    "p99": 9.0,
    "by_revision": {"aaa": {"n": 1890, "wrong": 121}, "bbb": {"n": 210, "wrong": 3}},
}
VERSIONS = {"aaa": "first", "bbb": "better"}


def text_of(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_line_has_phase_weight_requests_and_evidence() -> None:
    assert line(frame("rolling out", 12.4, STATUS, STATS, VERSIONS)) == (
        "  12 s  Progressing, 25 % canary | 2,100 sent, 0 failed | accuracy Undecided (3/200 against 120/1,800)"
    )


def test_a_panel_has_the_answers_of_each_version_and_the_odds() -> None:
    shown = text_of(panel(frame("rolling out", 12.4, STATUS, STATS, VERSIONS)))
    for part in (
        "rolling out",
        "25 % better, the rest first",
        "step 2 of 3",
        "210 answers, 3 wrong",
        "0.2",
        "7.5",
        "step 2 of 3 [/2 min]",
    ):
        assert part in shown


def test_a_resource_that_nothing_is_known_of_can_be_shown() -> None:
    empty = frame("starting", 0.0, {}, {}, {})
    assert line(empty) == "   0 s  Pending, 0 % canary"
    assert "starting" in text_of(panel(empty))


def test_a_log_gets_a_line_at_each_change_and_not_each_second(capsys: pytest.CaptureFixture[str]) -> None:
    screen = PlainScreen()
    for second in range(5):
        screen.show(frame("rolling out", second, STATUS, STATS, VERSIONS))
    screen.show(frame("rolling out", 5, STATUS | {"weight": 50}, STATS, VERSIONS))
    assert [shown.split(" s ")[0].strip() for shown in capsys.readouterr().out.splitlines()] == ["0", "5"]
