"""`serin simulate`: how often a policy decides wrongly, and how soon it decides, under given effects."""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from serin_operator.api.spec import Metric, Mode, Strategy
from serin_operator.batch import Policy
from serin_operator.cli import policy, screen, waiting
from serin_operator.cli.errors import InputError
from serin_operator.decide import words
from serin_operator.decide.keys import labelled
from serin_operator.simulation import Results, World, simulate

_INTERVAL = 30.0  # seconds, where no policy file says another
_MOST = 10**9  # scrapes of all runs together

Delays = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened under one effect.

    name: as the flag has it. excess: per metric, the canary's share of failures minus the stable revision's.
    rollback_delays, promotion_delays: minutes from the first request, of the runs that ended so.
    """

    name: str
    excess: tuple[float, ...]
    runs: int
    rollback_delays: Delays
    promotion_delays: Delays
    exposed: float
    harmed: float

    @classmethod
    def of(cls, name: str, excess: tuple[float, ...], results: Results, minutes: float) -> "Outcome":
        """minutes: between two scrapes."""
        back, promoted = (
            np.asarray((places[places < results.scrapes] + 1) * minutes, np.float64)
            for places in (results.rolled_back, results.promoted)
        )
        runs = len(results.rolled_back)
        return cls(name, excess, runs, back, promoted, float(results.exposed.mean()), float(results.harmed.mean()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    each = policy.metric_setting
    text = "requests a second of all clients; every one is a trial of every metric"
    parser.add_argument("--rps", type=policy.positive, required=True, metavar="NUMBER", help=text)
    text = "the stable revision's share of failures: 0.05 is an accuracy of 95 %%"
    parser.add_argument(
        "--failure-rate", type=each(policy.rate), action="append", required=True, metavar="[NAME=]SHARE", help=text
    )
    text = "how much more the canary fails, such as 0.02; a row of the table each, may be repeated (0)"
    parser.add_argument(
        "--effect", type=each(policy.number), action="append", default=[], metavar="[NAME=]SHARE", help=text
    )
    text = "the canary's share, without steps (10)"
    parser.add_argument("--split", type=policy.percent, default=10.0, metavar="PERCENT", help=text)
    text = "the share of requests that get a label, for metrics of labels (1)"
    parser.add_argument("--labelled", type=policy.part, default=1.0, metavar="SHARE", help=text)
    waiting.add_disagreement(parser)
    parser.add_argument("--runs", type=policy.whole, default=1000, metavar="NUMBER", help="rollouts per effect (1000)")
    parser.add_argument("--scrapes", type=policy.whole, default=120, metavar="NUMBER", help="scrapes per run (120)")
    text = "time between scrapes (the policy's, or 30s)"
    parser.add_argument("--interval", type=policy.duration, metavar="TIME", help=text)
    text = "the same seed repeats the same runs (0)"
    parser.add_argument("--seed", type=policy.whole_from_0, default=0, metavar="NUMBER", help=text)
    parser.add_argument("--json", action="store_true", help="one object per effect")
    policy.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the table. Raises InputError."""
    effects = arguments.effect or [(None, 0.0)]
    names = policy.named(arguments.failure_rate, effects, arguments.margin) or ["failures"]
    analysis, rollout = policy.resolve(arguments, names)
    interval = arguments.interval or (analysis.interval if arguments.policy else _INTERVAL)
    simulated = Policy(replace(analysis, interval=interval), rollout)
    metrics = simulated.metrics
    waiting.check_disagreement(arguments, simulated)
    if arguments.labelled < 1 and not any(labelled(metric) for metric in metrics):
        raise InputError("--labelled is for metrics of labels, such as the accuracy, and none is given; leave it out")
    given = [metric.name for metric in metrics]
    policy.check_names("--failure-rate", arguments.failure_rate, given)
    policy.check_names("--effect", effects, given)
    if arguments.runs * arguments.scrapes * len(effects) > _MOST:
        raise InputError(f"more than {_MOST:,} scrapes in all; simulate fewer runs or scrapes")
    stable = [_failure_rate(metric, arguments) for metric in metrics]
    differ = _disagreements(simulated, arguments, stable)
    outcomes = []
    with screen.progress("simulating") as tell:
        for number, (hit, more) in enumerate(effects):
            excess = tuple(more if hit in (None, name) else 0.0 for name in given)
            world = _world(arguments, interval, stable, excess, differ)
            rng = np.random.default_rng(arguments.seed)
            results = simulate(simulated, world, rng, arguments.runs, progress=_part(tell, number, len(effects)))
            named = f"{more:g}" if hit is None else f"{hit}={more:g}"
            outcomes.append(Outcome.of(named, excess, results, interval / 60))
    if arguments.json:
        for outcome in outcomes:
            print(json.dumps(_as_json(outcome)))
        return
    _print(simulated, outcomes, arguments, interval, differ)


def _failure_rate(metric: Metric, arguments: argparse.Namespace) -> float:
    found = policy.chosen(arguments.failure_rate, metric.name)
    if found is None:
        raise InputError(f"--failure-rate says nothing of metric {metric.name}; add --failure-rate {metric.name}=…")
    return float(found)


def _disagreements(simulated: Policy, arguments: argparse.Namespace, stable: list[float]) -> list[float]:
    """Per metric, how often a shadow answers otherwise; of no use to those that pairs do not decide."""
    return [
        waiting.disagreement(arguments.disagreement, metric.name, rate) if paired else 0.0
        for metric, paired, rate in zip(simulated.metrics, simulated.paired, stable, strict=True)
    ]


def _world(
    arguments: argparse.Namespace,
    interval: float,
    stable: list[float],
    excess: tuple[float, ...],
    differ: list[float],
) -> World:
    canary = [rate + more for rate, more in zip(stable, excess, strict=True)]
    if wrong := [rate for rate in canary if not 0 <= rate <= 1]:
        raise InputError(f"an effect makes the canary's share of failures {wrong[0]:g}; it must be between 0 and 1")
    return World(
        rate=arguments.rps,
        canary=np.array(canary)[:, None],
        stable=np.array(stable)[:, None],
        scrapes=arguments.scrapes,
        interval=interval,
        weight=arguments.split,
        labelled=arguments.labelled,
        differ=differ,
    )


def _part(tell: Callable[[float], None], number: int, parts: int) -> Callable[[float], None]:
    """The progress of one part of several."""
    return lambda share: tell((number + share) / parts)


# --- output ----------------------------------------------------------------------------------------------------


def _as_json(outcome: Outcome) -> dict[str, object]:
    rolled_back, promoted = (len(each) / outcome.runs for each in (outcome.rollback_delays, outcome.promotion_delays))
    return {
        "effect": outcome.name,
        "runs": outcome.runs,
        "rolled_back": rolled_back,
        "promoted": promoted,
        "held": max(0.0, 1 - rolled_back - promoted),
        "rollback_minutes": _middle(outcome.rollback_delays),
        "promotion_minutes": _middle(outcome.promotion_delays),
        "canary_requests": outcome.exposed,
        "harmed_requests": outcome.harmed,
    }


def _middle(delays: Delays) -> dict[str, float] | None:
    return {"median": float(np.median(delays)), "mean": float(np.mean(delays))} if len(delays) else None


def _print(
    simulated: Policy, outcomes: list[Outcome], arguments: argparse.Namespace, interval: float, differ: list[float]
) -> None:
    lasts = words.duration(arguments.scrapes * interval / 60)
    each = f"{words.count(arguments.runs)} runs per effect, {arguments.scrapes} scrapes every {interval:g} s ({lasts})"
    print(f"{each}, {words.count(arguments.rps)} requests a second, {_split(simulated, arguments)}.")
    headings = ["effect", "rolled back", "promoted", "held", "rolled back after", "promoted after"]
    rows = [_row(outcome) for outcome in outcomes]
    screen.table([*headings, "canary requests", "harmed requests"], rows, left=())
    screen.say("Shares with their standard errors; delays as median and mean.")
    for metric, paired, share in zip(simulated.metrics, simulated.paired, differ, strict=True):
        if paired:
            often = f"{words.percent(share)} of the shadow's answers differ, more if its effect is larger"
            print(f"{metric.name} is decided by pairs: {often}.")
    analysis = simulated.analysis
    for what, errors, rate in (
        ("Rolled back", [o.name for o in outcomes if _harmless(simulated, o)], analysis.false_rollback_rate),
        ("Promoted", [o.name for o in outcomes if _unfit(simulated, o)], analysis.false_promotion_rate),
    ):
        if errors:
            print(f"{what} under effect {', '.join(errors)} is wrong: at most {words.percent(rate)} of the runs.")


def _split(simulated: Policy, arguments: argparse.Namespace) -> str:
    """What the canary gets of the requests."""
    if simulated.rollout is None:
        return f"{arguments.split:g} % of them to the canary"
    steps = "in the policy's steps" if simulated.rollout.mode is Mode.STEPS else "by the adaptive ramp"
    if simulated.shadow is None:
        return steps
    copies = f"copies of {simulated.shadow.percent} % of them to the shadow"
    return copies if simulated.rollout.strategy is Strategy.SHADOW else f"{copies}, then {steps}"


def _row(outcome: Outcome) -> list[str]:
    back, promoted = len(outcome.rollback_delays), len(outcome.promotion_delays)
    return [
        outcome.name,
        *(_share(count, outcome.runs) for count in (back, promoted, outcome.runs - back - promoted)),
        *(_delays(each) for each in (outcome.rollback_delays, outcome.promotion_delays)),
        f"{outcome.exposed:,.0f}",
        f"{outcome.harmed:,.1f}",
    ]


def _share(count: int, runs: int) -> str:
    share = count / runs
    error = math.sqrt(share * (1 - share) / runs)
    return f"{100 * share:.1f} ± {100 * error:.1f} %"


def _delays(delays: Delays) -> str:
    return ", ".join(words.duration(float(of(delays))) for of in (np.median, np.mean)) if len(delays) else "–"


def _harmless(simulated: Policy, outcome: Outcome) -> bool:
    """Whether no guard is worse by more than is tolerated."""
    pairs = zip(simulated.metrics, outcome.excess, strict=True)
    return all(excess <= metric.tolerance for metric, excess in pairs if metric.guards)


def _unfit(simulated: Policy, outcome: Outcome) -> bool:
    """Whether a gate is worse by its margin or more."""
    pairs = zip(simulated.metrics, outcome.excess, strict=True)
    return any(excess >= metric.margin for metric, excess in pairs if metric.gates)
