"""`serin plan`: how long a rollout needs at a traffic, or what it can see in the time there is."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serin_operator.api.spec import Analysis, Metric, Mode, Rollout
from serin_operator.cli import policy, screen
from serin_operator.cli.errors import InputError
from serin_operator.decide import forecast, outlook, words
from serin_operator.decide.forecast import Prospect, Schedule
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
        help="requests a second of both arms together; for metrics of labels, labelled predictions a second",
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
    parser.add_argument("--plot", metavar="FILE.svg", help="draw time against margin and traffic; needs matplotlib")
    parser.add_argument("--json", action="store_true", help="one object per metric")
    policy.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the plan. Raises InputError."""
    names = policy.named(arguments.rps, arguments.failure_rate, arguments.margin) or ["failures"]
    analysis, rollout = policy.resolve(arguments, names)
    schedule = outlook.schedule(rollout) if rollout else [(arguments.split, 0.0)]
    gates = _gates(analysis, arguments)
    plans = [_plan(gate, schedule, arguments.within) for gate in gates]
    slowest = max(plans, key=lambda plan: (plan.promoted, forecast.waits([plan.gate], schedule[-1:])))
    if arguments.plot:
        _draw(Path(arguments.plot), slowest.gate, schedule)
    if arguments.json:
        for plan in plans:
            print(json.dumps(_as_json(plan)))
        return
    print(_setting(schedule, rollout))
    print("Times to plan for: about seven in ten canaries that are as good as the stable revision are promoted sooner.")
    _print_plans(plans, arguments.within is not None)
    _print_picture(slowest.gate, schedule)
    if rollout is not None:
        limit = rollout.max_duration / 60
        screen.say(forecast.forecast(gates, schedule, schedule, max_minutes=limit, time=0.0).message)


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


def _plan(gate: Prospect, schedule: Schedule, within: float | None) -> Plan:
    (promoted,) = forecast.waits([gate], schedule)
    minutes = promoted if within is None else within / 60
    worsening = None
    if gate.for_rollback is not None and math.isfinite(minutes):
        worsening = forecast.detectable_worsening(
            schedule,
            max(0.0, minutes - gate.delay),
            failure_rate=gate.failure_rate,
            tolerance=gate.tolerance,
            per_minute=gate.per_minute,
            log_odds=gate.for_rollback,
            phi=gate.phi,
        )
    return Plan(gate, promoted, minutes, worsening, smallest_margin(gate, schedule, minutes))


def smallest_margin(gate: Prospect, schedule: Schedule, minutes: float) -> float | None:
    """The smallest margin with which a good canary passes within so many minutes; None if none does."""

    def passes(margin: float) -> bool:
        return forecast.waits([replace(gate, margin=margin)], schedule)[0] <= minutes

    low, high = gate.tolerance, 1 - gate.failure_rate - 1e-9
    if low >= high or not passes(high):
        return None
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _as_json(plan: Plan) -> dict[str, object]:
    gate = plan.gate
    return {
        "metric": gate.name,
        "per_minute": gate.per_minute,
        "failure_rate": gate.failure_rate,
        "margin": gate.margin,
        "minutes": plan.promoted if math.isfinite(plan.promoted) else None,
        "within": plan.within if math.isfinite(plan.within) else None,
        "detectable": plan.worsening,
        "smallest_margin": plan.margin,
    }


def _setting(schedule: Schedule, rollout: Rollout | None) -> str:
    if rollout is not None and rollout.mode is Mode.ADAPTIVE:
        share = f"{schedule[0][0]:g} % of the requests (maxWeight; an adaptive rollout begins with less)"
    elif rollout is None:
        share = f"{schedule[0][0]:g} % of the requests"
    else:
        share = ", ".join(f"{weight:g} % for {words.duration(minutes)}" for weight, minutes in schedule)
        share += ", then that share for as long as it takes"
    return f"The canary gets {share}."


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


def _print_picture(gate: Prospect, schedule: Schedule) -> None:
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
        waits = forecast.waits(gates, schedule)
        longest = max((wait for wait in waits if math.isfinite(wait)), default=0.0)
        rows = [
            [label + (" ◂" if other == gate else ""), _wait(wait), screen.bar(wait, longest)]
            for label, other, wait in zip(labels, gates, waits, strict=True)
        ]
        screen.table([heading, f"{gate.name}: promoted after", ""], rows, left=(2,))


def _draw(path: Path, gate: Prospect, schedule: Schedule) -> None:
    try:
        from serin_operator.cli import plot
    except ImportError as error:
        raise InputError("--plot needs matplotlib: pip install 'serin-operator[cli,plot]'") from error
    plot.draw(path, gate, schedule)


def _wait(minutes: float) -> str:
    return words.duration(minutes) if math.isfinite(minutes) else "never"
