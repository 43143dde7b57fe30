"""The strategy BlueGreen: the new revision at full size beside the stable one, then one switch of all requests.

Until the switch no client reaches it, only who calls the preview's Service. Those requests are not the ones that the
stable revision gets, so nothing is compared: each metric's bound is tested on the preview's own counts, and a gate that
has none can not pass.
"""

from serin_operator.api.spec import Analysis
from serin_operator.api.status import ByHand, Record, Status
from serin_operator.decide.analysis import Judgement
from serin_operator.decide.clocks import QUIET_LOOKS
from serin_operator.decide.conditions import Activity
from serin_operator.decide.keys import labelled
from serin_operator.decide.observed import Observed
from serin_operator.decide.roles import preview_of
from serin_operator.decide.transitions import promote, to_weight
from serin_operator.decide.verdict import Action

_WHERE = "In the preview"


def to_preview(observed: Observed, status: Status, now: float) -> tuple[Status, Activity]:
    """From now on the preview's requests count. No weight changes, and none will before the switch."""
    assert status.canary
    message = (
        f"{status.canary.version} can be called at the Service {preview_of(observed.name)}; no client reaches it yet."
    )
    return to_weight(observed, status, Record(now, "Advanced", "PreviewReady", message, step=0, weight=0), now)


def move_on(
    observed: Observed, status: Status, judged: Judgement, lasted: float, now: float
) -> tuple[Status, Activity]:
    """Nothing holds the rollout but the evidence: the switch, or what is missing for it. lasted: in seconds."""
    if judged.verdict.action is Action.PROMOTE:
        return promote(observed, status, judged, now)
    if judged.unmeasurable or not judged.canary_trials:
        names = ", ".join(judged.unmeasurable) or "no metric"
        text = (
            f"{_WHERE}: holding, {names} can not be judged by it. Its requests are not those that stable gets, so only "
            "a metric's bound is tested: set analysis.metrics[].bound, take the gate away (role: Guard), or promote "
            f"without evidence (serin promote {observed.name} --full). {judged.summary}"
        )
        return status, Activity("NotMeasurable", text)
    missed = [name for name in _quiet(judged) if lasted >= _patience(observed.spec.analysis, name)]
    if missed:
        text = f"{_WHERE}: holding, no data for {', '.join(missed)} yet: send requests to {preview_of(observed.name)}."
        return status, Activity("NoTraffic", text)
    allowed = " Promotion is allowed by hand." if status.rollout and status.rollout.by_hand is ByHand.STEP else ""
    return status, Activity("GatheringEvidence", f"{_WHERE}: {judged.summary}{allowed}")


def _quiet(judged: Judgement) -> list[str]:
    """Metrics for which the preview has counted nothing."""
    return [name for name, trials in judged.canary_trials.items() if trials == 0]


def _patience(wanted: Analysis, name: str) -> float:
    """For how long it is normal that a metric has counted nothing: labels are counted a window later."""
    late = any(labelled(metric) for metric in wanted.metrics if metric.name == name)
    return QUIET_LOOKS * wanted.interval + (wanted.label_window if late else 0.0)
