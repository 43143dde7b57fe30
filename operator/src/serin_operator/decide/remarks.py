"""What a reader should know about the evidence besides the metrics: one word and a sentence each."""

import math

from serin_operator.api.spec import Analysis
from serin_operator.api.status import Remark
from serin_operator.decide import one_arm, pairs
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import moves_key
from serin_operator.decide.lineup import SHARE
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.standings import Numbers, Standings
from serin_operator.decide.tracks import State
from serin_operator.decide.words import between, count, duration, percent, shares, two_digits

SHARE_MISMATCH = "TrafficShareMismatch"
DISAGREEMENT = "AnswersDiffer"
SHIFT = "PredictionShift"
_SHARE_ODDS = 1000.0  # far beyond chance: a hold for this asks a person to look at the routing


def share_mismatch(state: State) -> bool:
    """Whether the canary's share of the requests is not what is configured."""
    log_e = one_arm.log_e_either(state.arms.tests)[state.arms.place(SHARE)]
    return bool(log_e >= math.log(_SHARE_ODDS))


def remarks(state: State, analysis: Analysis, found: Standings) -> tuple[Remark, ...]:
    """Of a state that is aligned with the analysis; at most one of each reason."""
    all_of_them = (
        _share(state),
        _coverage(found.coverage),
        _overdispersed(found),
        _stable_over_bound(analysis, found),
        _late_classes(state),
    )
    return tuple(remark for remark in all_of_them if remark is not None)


def of_pairs(state: State, analysis: Analysis, snapshot: Snapshot, canary: str) -> tuple[Remark, ...]:
    """What pairs of answers tell, also without any label: how often they differ, and which classes move."""
    if state.pairs is None or not state.pairs.seen.trials:
        return ()
    seen = state.pairs.seen
    low, high = pairs.disagreement_interval(seen, alpha=analysis.false_rollback_rate)
    share, least, most = between(seen.failures / seen.trials, low, high)
    text = f"{share} of {count(seen.trials)} requests got another answer from the canary (between {least} and {most})."
    if state.pairs.window and state.pairs.totals.all:
        tested, age = count(state.pairs.totals.all), duration(state.pairs.window / 60)
        text += f" Tested are {tested} of them, drawn by chance, with the labels that came within {age}."
    start = moves_key(state.pairs.stable, "")
    moves = {
        key.removeprefix(start): sum(of_key.get(canary, {}).values(), Counts())
        for key, of_key in snapshot.samples.items()
        if key.startswith(start)
    }
    found = [Remark(DISAGREEMENT, text)]
    moved = pairs.moved(moves, 1 / analysis.false_rollback_rate)
    if moved:
        each = [
            f"{name} {count(more)} times in place of another, {count(less)} the other way" for name, more, less in moved
        ]
        text = f"The canary answers some classes more, or less, often than stable does: {'; '.join(each)}."
        found.append(Remark(SHIFT, text))
    return tuple(found)


def _share(state: State) -> Remark | None:
    if not share_mismatch(state):
        return None
    canary, both = state.arms.counts[state.arms.place(SHARE)].tolist()
    observed, expected = shares(canary / both, state.expected_share)
    text = (
        f"{observed} of {count(both)} requests reached the canary where {expected} is configured. Look for clients "
        "that pass the router by, such as over connections from before a change of routers, and for few callers that "
        "traffic.sticky keeps apart; then abort, and retry."
    )
    return Remark(SHARE_MISMATCH, text)


def _coverage(numbers: Numbers | None) -> Remark | None:
    """The test is on labels among predictions and labels together, f; f / (1 - f) labels are there per prediction."""
    if numbers is None or not numbers.seen or numbers.low <= 0 <= numbers.high:
        return None
    canary, of_canary, stable, of_stable = numbers.counts[0]
    in_canary, in_stable = shares(*(y / max(1, n - y) for y, n in ((canary, of_canary), (stable, of_stable))))
    text = (
        f"{in_canary} of the canary's predictions got a label in time, and {in_stable} of stable's. If it depends on "
        "the prediction whether a label comes, the metrics that need labels are not to be trusted."
    )
    return Remark("LabelCoverageDiffers", text)


def _overdispersed(found: Standings) -> Remark | None:
    spread = [(each.metric.name, each.numbers.phi) for each in found.tested if each.numbers.phi > 1]
    if not spread:
        return None
    names = ", ".join(f"{name} by {two_digits(phi)}" for name, phi in spread)
    text = f"Failures of the stable revision come in bursts, so the evidence counts less: {names}."
    return Remark("Overdispersed", text)


def _stable_over_bound(analysis: Analysis, found: Standings) -> Remark | None:
    over = []
    for each, standing in zip(found.tested, found.verdicts, strict=True):
        if standing.bound is not None and standing.bound[2] >= -math.log(analysis.false_rollback_rate):
            failures, trials = (sum(stratum[place] for stratum in each.numbers.counts) for place in (2, 3))
            (share,) = shares(failures / max(1, trials))
            over.append(f"{each.metric.name} ({share} of {count(trials)}, bound {percent(each.metric.bound or 0.0)})")
    if not over:
        return None
    return Remark("StableOverBound", f"The stable revision breaks its own bound: {', '.join(over)}.")


def _late_classes(state: State) -> Remark | None:
    late = [f"{one.row.name}: {', '.join(one.late)}" for one in state.macros if one.late]
    if not late:
        return None
    text = f"Classes that were first seen during the rollout have no part in the averages ({'; '.join(late)})."
    return Remark("NewClasses", text)
