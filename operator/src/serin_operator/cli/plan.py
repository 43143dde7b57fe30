"""`serin plan`: how long a rollout needs at a traffic, or what it can see in the time there is."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serin_operator.api.spec import Analysis, Metric
from serin_operator.cli import policy, screen, waiting
from serin_operator.cli.errors import InputError
from serin_operator.cli.waiting import Shadow, Trial
from serin_operator.decide import forecast, words
from serin_operator.decide.forecast import Prospect
from serin_operator.decide.standings import prospect
from serin_operator.decide.verdict import odds_alone

_MARGINS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)  # times the margin, in the picture
_TRAFFIC = (0.1, 0.3, 1.0, 3.0, 10.0)  # times the traffic
_PRECISION = 1e-4  # of the smallest margin, relative


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be expected of one metric.

    promoted: minutes until a good canary passes, may be inf. within: the minutes that the user has, else `promoted`.
    worsening, margin: the smallest that is found, or passes, within them; None if none.
    """

    gate: Prospect
    promoted: float
    within: float
    worsening: float | None
    margin: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    each = policy.metric_setting
    parser.add_argument(
        "--rps",
        type=each(policy.positive),
        action="append",
        required=True,
        metavar="[NAME=]NUMBER",
        help="requests a second of all clients; for metrics of labels, labelled predictions a second",
    )
    parser.add_argument(
        "--failure-rate",
        type=each(policy.rate),
        action="append",
        required=True,
        metavar="[NAME=]SHARE",
        help="the stable revision's share of failures: 0.05 is an accuracy of 95 %%",
    )
    parser.add_argument(
        "--split", type=policy.percent, default=10.0, metavar="PERCENT", help="the canary's share, without steps (10)"
    )
    parser.add_argument(
        "--within", type=policy.duration, metavar="TIME", help="the other way round: what is seen in 1h?"
    )
    parser.add_argument(
        "--dispersion",
        type=policy.dispersion,
        default=1.0,
        metavar="PHI",
        help="overdispersion, if failures come in bursts (1)",
    )
    waiting.add_disagreement(parser)
    parser.add_argument("--plot", metavar="FILE.svg", help="draw time against margin and traffic; needs matplotlib")
    parser.add_argument("--json", action="store_true", help="one object per metric")
    policy.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the plan. Raises InputError."""
    names = policy.named(arguments.rps, arguments.failure_rate, arguments.margin) or ["failures"]
    analysis, rollout = policy.resolve(arguments, names)
    trial = waiting.trial(arguments, analysis, rollout)
    plans = [_plan(gate, trial, arguments.within) for gate in _gates(analysis, arguments)]
    slowest = max(plans, key=lambda plan: (plan.promoted, trial.evidence(plan.gate))).gate
    if arguments.plot:
        _draw(Path(arguments.plot), slowest, trial)
    if arguments.json:
        for plan in plans:
            print(json.dumps(_as_json(plan, trial)))
        return
    print(trial.setting)
    print("Times to plan for: about seven in ten canaries that are as good as the stable revision are promoted sooner.")
    _print_plans(plans, arguments.within is not None)
    if isinstance(trial, Shadow):
        for plan in plans:
            if plan.gate.name in trial.paired:
                screen.say(_of_pairs(plan.gate, trial))
    _print_picture(slowest, trial)
    if rollout is not None:
        limit = rollout.max_duration / 60
        (minutes,) = trial.waits([slowest])
        screen.say(forecast.message(slowest, minutes, trial.worsening(slowest, limit), limit))


def _gates(analysis: Analysis, arguments: argparse.Namespace) -> list[Prospect]:
    names = [metric.name for metric in analysis.metrics]
    policy.check_names("--rps", arguments.rps, names)
    policy.check_names("--failure-rate", arguments.failure_rate, names)
    gates = [_gate(metric, analysis, arguments) for metric in analysis.metrics if metric.gates]
    if not gates:
        raise InputError("no metric is a gate, so nothing is ever promoted; give one the role GuardAndGate or Gate")
    return gates


def _gate(metric: Metric, analysis: Analysis, arguments: argparse.Namespace) -> Prospect:
    rps, failure_rate = (policy.chosen(flag, metric.name) for flag in (arguments.rps, arguments.failure_rate))
    for flag, value in (("--rps", rps), ("--failure-rate", failure_rate)):
        if value is None:
            raise InputError(f"{flag} says nothing of metric {metric.name}; add {flag} {metric.name}=…")
    alone = odds_alone(analysis.metrics, alpha=analysis.false_rollback_rate).get(metric.name)
    gate = prospect(analysis, metric, [(0, 0)], per_minute=60 * rps, phi=arguments.dispersion, alone=alone)
    return replace(gate, failure_rate=failure_rate)


def _plan(gate: Prospect, trial: Trial, within: float | None) -> Plan:
    (promoted,) = trial.waits([gate])
    minutes = promoted if within is None else within / 60
    worsening = trial.worsening(gate, minutes) if math.isfinite(minutes) else None
    return Plan(gate, promoted, minutes, worsening, smallest_margin(gate, trial, minutes))


def smallest_margin(gate: Prospect, trial: Trial, minutes: float) -> float | None:
    """The smallest margin with which a good canary passes within so many minutes; None if none does."""

    def passes(margin: float) -> bool:
        return trial.waits([replace(gate, margin=margin)])[0] <= minutes

    low, high = gate.tolerance, 1 - gate.failure_rate - 1e-9
    if low >= high or not passes(high):
        return None
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _as_json(plan: Plan, trial: Trial) -> dict[str, object]:
    gate = plan.gate
    told = {
        "metric": gate.name,
        "per_minute": gate.per_minute,
        "failure_rate": gate.failure_rate,
        "margin": gate.margin,
        "minutes": plan.promoted if math.isfinite(plan.promoted) else None,
        "within": plan.within if math.isfinite(plan.within) else None,
        "detectable": plan.worsening,
        "smallest_margin": plan.margin,
    }
    if isinstance(trial, Shadow) and gate.name in trial.paired:
        answers, pairs = trial.answers(gate), trial.pairs(gate)
        told["disagreement"], told["labelled"] = answers.differ, answers.labelled
        told["pairs"] = pairs if math.isfinite(pairs) else None
    return told


def _of_pairs(gate: Prospect, trial: Shadow) -> str:
    """What the pairs of a shadow need, beside what a split of the requests would."""
    answers, pairs = trial.answers(gate), trial.pairs(gate)
    text = (
        f"{gate.name} is decided by pairs of answers to the same request. In {words.percent(answers.differ)} the "
        "answers are taken to differ (--disagreement), and one of the two to be right."
    )
    if not math.isfinite(pairs):
        return f"{text} So it never comes to a verdict."
    labels, (share, of_split) = pairs * answers.labelled, trial.labels_of_split(gate)
    text += f" That takes about {words.about(pairs)} pairs, {words.about(labels)} of them with a label"
    if trial.percent < 100:
        text += f" ({words.about(100 * labels / trial.percent)} labels of all answers)"
    text += f"; a split with {share:g} % for the canary needs about {words.about(of_split)} labels."
    if math.isfinite(without := trial.pairs(replace(gate, per_minute=0.0))):
        text += f" Without any label about {words.about(without)} pairs do, since the answers hardly differ."
    return text


def _print_plans(plans: Sequence[Plan], reverse: bool) -> None:
    rows = []
    for plan in plans:
        gate = plan.gate
        worsening = "–" if plan.worsening is None else words.points(plan.worsening)
        row = [gate.name, words.count(gate.per_minute), words.percent(gate.failure_rate)]
        if reverse:
            margin = "–" if plan.margin is None else words.points(plan.margin)
            rows.append([*row, words.duration(plan.within), margin, worsening])
        else:
            rows.append([*row, words.points(gate.margin), _wait(plan.promoted), worsening])
    headings = ["metric", "trials a minute", "stable fails"]
    headings += ["within", "smallest margin to promote by"] if reverse else ["margin", "promoted after"]
    screen.table([*headings, "worsening found by then"], rows)


def _print_picture(gate: Prospect, trial: Trial) -> None:
    """Bars: how long the slowest metric takes with other margins and with other traffic."""
    margins = [
        gate.margin * factor for factor in _MARGINS if gate.tolerance < gate.margin * factor < 1 - gate.failure_rate
    ]
    traffic = [gate.per_minute * factor for factor in _TRAFFIC]
    for heading, labels, gates in (
        ("margin", [words.points(margin) for margin in margins], [replace(gate, margin=margin) for margin in margins]),
        (
            f"{gate.trials} a second",
            [words.count(rate / 60) for rate in traffic],
            [replace(gate, per_minute=rate) for rate in traffic],
        ),
    ):
        waits = trial.waits(gates)
        longest = max((wait for wait in waits if math.isfinite(wait)), default=0.0)
        rows = [
            [label + (" ◂" if other == gate else ""), _wait(wait), screen.bar(wait, longest)]
            for label, other, wait in zip(labels, gates, waits, strict=True)
        ]
        screen.table([heading, f"{gate.name}: promoted after", ""], rows, left=(2,))


def _draw(path: Path, gate: Prospect, trial: Trial) -> None:
    try:
        from serin_operator.cli import plot
    except ImportError as error:
        raise InputError("--plot needs matplotlib: pip install 'serin-operator[cli,plot]'") from error
    plot.draw(path, gate, trial.waits)


def _wait(minutes: float) -> str:
    return words.duration(minutes) if math.isfinite(minutes) else "never"
