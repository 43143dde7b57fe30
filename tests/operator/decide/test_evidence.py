"""The sequential tests: published values, and exact means under the null hypotheses."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, nchypergeom_fisher

from serin_operator.decide.alternatives import WORSE, Prior
from serin_operator.decide.evidence import (
    GRID,
    Evidence,
    log_e_non_inferior,
    log_e_superior,
    log_e_worse,
    onset,
    start,
    update,
)
from serin_operator.decide.projection import Array, Integers, log_likelihood_ratios

# The prior of the reference values: half-normal over log odds ratios, all of the stake at the start.
LOG_ODDS = (np.arange(1, 25) - 0.5) / 8
HALF_NORMAL = Prior.of([0.0] * 24, LOG_ODDS.tolist(), np.exp(-(LOG_ODDS**2) / (2 * 0.5**2)).tolist())


def block(*counts: int) -> Integers:
    """y_c, n_c, y_s, n_s of one stratum, or of several in order, for one test."""
    return np.array(counts, np.int64).reshape(1, -1, 4)


def follow(evidence: Evidence, blocks: list[Integers]) -> list[Evidence]:
    return [evidence := update(evidence, each) for each in blocks]


THREE_BLOCKS = [block(3, 30, 14, 270), block(5, 33, 13, 267), block(6, 28, 16, 272)]


# --- Values known from elsewhere


@pytest.mark.parametrize(
    ("tolerance", "phi", "expected"),
    [
        (0.0, 1.0, [0.298961, 1.471261, 3.577253]),
        (0.005, 1.0, [0.230012, 1.277845, 3.186806]),
        (0.0, 2.0, [0.146504, 0.681868, 1.562999]),
    ],
)
def test_evidence_for_worse_has_the_reference_values(tolerance: float, phi: float, expected: list[float]) -> None:
    states = follow(start(tolerance=tolerance, margin=0.02, phi=phi, prior=HALF_NORMAL), THREE_BLOCKS)
    assert [log_e_worse(state)[0] for state in states] == pytest.approx(expected, abs=1e-6)


def test_evidence_for_promotion_has_the_reference_values() -> None:
    states = follow(start(tolerance=0.0, margin=0.02), THREE_BLOCKS)
    expected = [-0.200155, -1.073465, -2.065531]
    assert [log_e_non_inferior(state)[0] for state in states] == pytest.approx(expected, abs=1e-6)


def test_four_equal_blocks_have_the_reference_values() -> None:
    last = follow(start(tolerance=0.0, margin=0.02, prior=HALF_NORMAL), [block(2, 200, 18, 1800)] * 4)[-1]
    assert log_e_worse(last)[0] == pytest.approx(-0.629600, abs=1e-6)
    assert log_e_non_inferior(last)[0] == pytest.approx(5.372168, abs=1e-6)
