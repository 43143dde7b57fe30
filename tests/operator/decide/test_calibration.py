"""The stable revision by itself: how much its pods scatter, its traffic, and what both mean for the rollout."""

import json

import numpy as np
import pytest
from tests.operator.decide.lab import STABLE, START, Lab, metric, policy

from serin_operator.api.spec import Analysis, Role
from serin_operator.decide import analysis, calibration, tracks
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import REQUESTS, class_key

BURSTS = [0.01, 0.01, 0.01, 0.2]


def calibrated(
    wanted: Analysis, lab: Lab, shares: list[float], looks: int = 40, keys: tuple[str, ...] = ("errors",)
) -> str:
    """Four stable pods, each with 100 requests a look, of which its part fails; the parts move from pod to pod."""
    lab.pods = 4
    rng, state = np.random.default_rng(3), ""
    for look in range(looks + 1):
        state = analysis.calibrate(wanted, state, lab.snapshot, STABLE, START + 10 * look)
        for number in range(4):
            failing = int(rng.binomial(100, shares[(number + look) % 4]))
            for key in keys:
                lab.count(key, (0, 0), (failing, 100), number)
            lab.count(REQUESTS, (0, 0), (0, 100), number)
    return state


def test_bursts_discount_the_evidence_of_the_rollout() -> None:
    wanted = policy(metric(), metric("latency"))
    lab = Lab(wanted)
    lab.calibrated = calibrated(wanted, lab, BURSTS)
    phi = calibration.load(lab.calibrated).phi(["errors"])
    assert phi > 3
    lab.begin()
    assert tracks.load(lab.state).plain.tests.phi.tolist() == [phi, 1.0]
    judged = lab.look()
    assert [remark.reason for remark in judged.remarks] == ["Overdispersed"]
    assert f"errors by {phi:.2g}" in judged.remarks[0].message


def test_chance_alone_hardly_does() -> None:
    wanted = policy()
    assert 1 <= calibration.load(calibrated(wanted, Lab(wanted), [0.05] * 4)).phi(["errors"]) < 1.8


def test_too_few_looks_and_a_single_pod_show_nothing() -> None:
    wanted = policy()
    assert calibration.load(calibrated(wanted, Lab(wanted), BURSTS, looks=9)).phi(["errors"]) == 1
    lab, state = Lab(wanted), ""
    for look in range(30):
        lab.count("errors", (0, 0), (50 if look % 3 else 0, 100))
        state = analysis.calibrate(wanted, state, lab.snapshot, STABLE, START + look)
    assert calibration.load(state).phi(["errors"]) == 1


def test_the_classes_of_an_average_scatter_together() -> None:
    recall = metric("recall")
    wanted = policy(recall)
    keys = tuple(class_key(recall, label, 0.0) for label in ("cat", "dog"))
    lab = Lab(wanted)
    lab.calibrated = calibrated(wanted, lab, BURSTS, keys=keys)
    lab.begin()
    assert tracks.load(lab.state).macros[0].test.phi[0] > 3


def test_prospects_before_the_rollout_rest_on_the_stable_revision() -> None:
    wanted = policy(metric(), metric("latency", role=Role.GUARD), metric("accuracy"))
    lab = Lab(wanted)
    state = calibrated(wanted, lab, [0.05] * 4)
    errors, accuracy = analysis.prospects(wanted, state)
    assert errors.per_minute == pytest.approx(2400)
    assert errors.failure_rate == pytest.approx(0.05, abs=0.01)
    assert (accuracy.per_minute, accuracy.failure_rate) == (0, 0.1)


def test_prospects_without_calibration_know_nothing() -> None:
    (gate,) = analysis.prospects(policy(metric(bound=0.2)), "")
    assert (gate.per_minute, gate.phi, gate.failure_rate) == (0, 1, 0.1)
    assert gate.missing == gate.missing_under == pytest.approx(np.log(20))


def test_the_rollout_begins_with_the_traffic_that_was_seen() -> None:
    wanted = policy()
    lab = Lab(wanted)
    lab.calibrated = calibrated(wanted, lab, [0.05] * 4)
    lab.begin()
    assert analysis.recall(wanted, lab.state, None).per_second == pytest.approx(40)


def test_the_same_look_again_changes_nothing_and_a_blind_one_neither() -> None:
    wanted = policy(metric(), metric("latency"))
    lab = Lab(wanted)
    state = calibrated(wanted, lab, BURSTS, looks=12)
    now = START + 200
    state = analysis.calibrate(wanted, state, lab.snapshot, STABLE, now)
    assert analysis.calibrate(wanted, state, lab.snapshot, STABLE, now) == state
    assert calibration.dump(calibration.load(state)) == state


def test_a_custom_metric_that_falls_does_not_count() -> None:
    wanted = policy(metric("custom"))
    lab = Lab(wanted)
    lab.unclocked = frozenset({f"custom/{STABLE}0"})
    lab.count("custom:refunds", (0, 0), (0, 100))
    state = analysis.calibrate(wanted, "", lab.snapshot, STABLE, START)
    lab.samples["custom:refunds"][STABLE][f"custom/{STABLE}0"] = Counts(0, 90)
    state = analysis.calibrate(wanted, state, lab.snapshot, STABLE, START + 10)
    lab.count("custom:refunds", (0, 0), (1, 20))
    known = calibration.load(analysis.calibrate(wanted, state, lab.snapshot, STABLE, START + 20))
    assert known.totals["custom:refunds"] == Counts(1, 10)


@pytest.mark.parametrize("text", ["{}", "null", '{"layout":0}', '{"layout":1}'])
def test_something_else_than_a_calibration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="calibration"):
        analysis.prospects(policy(), text)


def test_a_calibration_that_lacks_something_is_refused() -> None:
    wanted = policy()
    value = json.loads(calibrated(wanted, Lab(wanted), BURSTS, looks=2))
    for key in value:
        with pytest.raises(ValueError, match="calibration"):
            calibration.load(json.dumps({k: v for k, v in value.items() if k != key}))
