"""How long a gate waits for its evidence, and what it finds meanwhile: in a split of the requests, or as a shadow.

A shadow answers copies of some requests beside stable, and its metrics are decided as the operator does: the accuracy
by pairs of answers to the same request, the others arm by arm.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

from serin_operator.api import spec
from serin_operator.api.spec import Analysis, Mode, Strategy
from serin_operator.batch import Policy
from serin_operator.cli import policy
from serin_operator.cli.errors import InputError
from serin_operator.decide import course, forecast, outlook, paired_forecast, words
from serin_operator.decide.forecast import Answers, Prospect, Schedule
from serin_operator.decide.pairs import most_a_minute, paired_metrics
from serin_operator.decide.roles import shadow_of

DISAGREEMENT = 0.02  # where nobody says how often the answers differ


@dataclass(frozen=True, slots=True)
class Split:
    """The canary's share of the requests rises by a schedule, and every metric is compared arm by arm."""

    schedule: Schedule
    adaptive: bool = False

    def waits(self, gates: Sequence[Prospect]) -> list[float]:
        """Minutes to plan for until each gate lets a good canary be promoted; inf for never."""
        return self._course.waits(gates)

    def evidence(self, gate: Prospect) -> float:
        """The same without the time that the steps before the last have to last."""
        return forecast.waits([gate], self.schedule[-1:])[0]

    def worsening(self, gate: Prospect, minutes: float) -> float | None:
        """The smallest that is mostly rolled back within so many minutes; None if none is."""
        return self._course.worsening(gate, minutes)

    @property
    def setting(self) -> str:
        """What the canary gets, in a sentence."""
        if self.adaptive:
            share = f"{self.schedule[0][0]:g} % of the requests (maxWeight; an adaptive rollout begins with less)"
        elif len(self.schedule) == 1 and not self.schedule[0][1]:
            share = f"{self.schedule[0][0]:g} % of the requests"
        else:
            share = f"{_steps(self.schedule)}, then that share for as long as it takes"
        return f"The canary gets {share}."

    @property
    def _course(self) -> course.Split:
        return course.Split(self.schedule, self.schedule)


@dataclass(frozen=True, slots=True)
class Shadow:
    """The canary gets copies of `percent` of the requests, for `least` minutes at least, then what `follows`.

    requests: of clients, a minute. paired: names of the metrics that are decided by pairs. disagreement: as the user
    says, if so.
    """

    percent: int
    least: float
    follows: Split | None
    requests: float
    paired: frozenset[str]
    disagreement: float | None

    def waits(self, gates: Sequence[Prospect]) -> list[float]:
        """Minutes to plan for until each gate lets a good canary be promoted: what follows takes its least time."""
        return self._course.waits([self._seen(gate) for gate in gates])

    def evidence(self, gate: Prospect) -> float:
        """Minutes until the shadow has passed the gate, however long it has to last."""
        return self._course.evidence(self._seen(gate))

    def worsening(self, gate: Prospect, minutes: float) -> float | None:
        """The smallest that is mostly rolled back within so many minutes, none of which any client gets."""
        return self._course.worsening(self._seen(gate), minutes)

    def pairs(self, gate: Prospect) -> float:
        """Pairs to plan for until a good canary passes the gate; inf if it never does."""
        return paired_forecast.pairs_to_goal(gate, self.answers(gate))

    def answers(self, gate: Prospect) -> Answers:
        """What the pairs of this metric are like."""
        labelled = gate.per_minute / max(self.requests, gate.per_minute)
        return Answers(disagreement(self.disagreement, gate.name, gate.failure_rate), labelled, settled=labelled)

    def labels_of_split(self, gate: Prospect) -> tuple[float, float]:
        """The canary's share in a split of the requests, and the labels that this would need in both arms together."""
        share = min(self.percent, 50)
        (minutes,) = forecast.waits([replace(gate, missing_under=0.0, delay=0.0)], [(share, 0.0)])
        return share, gate.per_minute * minutes

    @property
    def setting(self) -> str:
        """What the canary gets, a sentence a line."""
        copies = (
            f"The canary gets copies of {self.percent} % of the requests, for {words.duration(self.least)} at least"
        )
        text = f"{copies}, and clients get none of its answers."
        if self.follows is None:
            return text
        if self.follows.adaptive:
            return f"{text}\nThe adaptive ramp that follows is taken to be over soon."
        steps = _steps(self.follows.schedule)
        return f"{text}\nThen it gets {steps}; the shadow's odds count on, so no more is planned for."

    @property
    def _course(self) -> course.Shadow:
        after = sum(minutes for _, minutes in self.follows.schedule) if self.follows else 0.0
        return course.Shadow(self.percent, self.least, after)

    def _seen(self, gate: Prospect) -> Prospect:
        """With what is counted: pairs of answers, or the canary's trials on top of those of clients' requests."""
        if gate.name not in self.paired:
            return replace(gate, per_minute=gate.per_minute * (1 + self.percent / 100))
        return replace(gate, paired=True, per_minute=self._pairs_a_minute(gate), answers=self.answers(gate))

    def _pairs_a_minute(self, gate: Prospect) -> float:
        """With one server of the canary; more of them count more at the age of a label window."""
        copies = max(self.requests, gate.per_minute) * self.percent / 100
        return min(copies, most_a_minute(60 * gate.delay))


Trial = Split | Shadow


def add_disagreement(parser: argparse.ArgumentParser) -> None:
    """The flag for what shadows need to be told."""
    parser.add_argument(
        "--disagreement",
        type=policy.rate,
        metavar="SHARE",
        help="of a shadow: how often its answers differ from stable's"
        f" ({DISAGREEMENT}, or less where the failure rate allows no more)",
    )


def check_disagreement(arguments: argparse.Namespace, decides: Policy) -> None:
    """Raises InputError for --disagreement where pairs decide nothing."""
    if arguments.disagreement is None or any(decides.paired):
        return
    if decides.shadow is None:
        raise InputError(
            "--disagreement is for policies with a shadow; add rollout.shadow to the policy, or leave it out"
        )
    raise InputError("--disagreement is for an accuracy, and the policy has none; leave it out")


def disagreement(given: float | None, metric: str, failure_rate: float) -> float:
    """How often the answers of a canary differ that fails as often as stable. Raises InputError.

    Of two answers that differ just one is taken to be right.
    """
    most = 2 * min(failure_rate, 1 - failure_rate)
    if given is not None and given > most:
        raise InputError(
            f"--disagreement {given:g}: of two answers that differ one is taken to be right, and with a failure rate of"
            f" {failure_rate:g} for {metric} that can be so in {most:g} of the requests at most"
        )
    return min(DISAGREEMENT, most) if given is None else given


def trial(arguments: argparse.Namespace, analysis: Analysis, rollout: spec.Rollout | None) -> Trial:
    """How the canary is tried under this policy. Raises InputError."""
    check_disagreement(arguments, Policy(analysis, rollout))
    if rollout is None:
        return Split([(arguments.split, 0.0)])
    shadow = shadow_of(rollout.strategy, rollout)
    split = Split(outlook.schedule(rollout), rollout.mode is Mode.ADAPTIVE)
    if shadow is None:
        return split
    return Shadow(
        percent=shadow.percent,
        least=shadow.duration / 60,
        follows=split if rollout.strategy is Strategy.CANARY else None,
        requests=60 * max(value for _, value in arguments.rps),
        paired=frozenset(metric.name for metric in paired_metrics(analysis)),
        disagreement=arguments.disagreement,
    )


def _steps(schedule: Schedule) -> str:
    return ", ".join(f"{weight:g} % for {words.duration(minutes)}" for weight, minutes in schedule)
