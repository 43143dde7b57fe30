"""Kubernetes' quantities as numbers."""

import pytest

from serin_operator.build.quantity import number_of


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        (1048576, 1048576),
        ("1048576", 1048576),
        ("64Mi", 64 * 1024**2),
        ("1.5Gi", 1536 * 1024**2),
        (".5Ki", 512),
        ("2.Ei", 2 * 1024**6),
        ("500k", 500_000),
        ("0.1M", 100_000),
        ("2G", 2_000_000_000),
        ("1E", 10**18),
        ("128974848000m", 128_974_848),
        ("1500m", 1),
    ],
)
def test_a_quantity_is_its_number_of_units(quantity: str | int, number: int) -> None:
    assert number_of(quantity) == number
