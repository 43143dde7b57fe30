"""Runs last: what all tests together have seen."""

from tests.e2e.figures import Figures
from tests.e2e.installed import Operator

ENOUGH_REQUESTS = 20_000
MOST_OPERATOR_MEMORY = 150 * 2**20


def test_no_request_failed(figures: Figures) -> None:
    assert figures.failed == 0
    assert figures.requests >= ENOUGH_REQUESTS


def test_the_operator_stays_small(operator: Operator, figures: Figures) -> None:
    memory = operator.memory()
    figures.operator_memory["at the end"] = memory
    figures.write()
    assert memory < MOST_OPERATOR_MEMORY
