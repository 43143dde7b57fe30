"""Kubernetes' quantities, such as `1.5Gi` or `500m`, as numbers."""

from decimal import Decimal

_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_UNITS = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(_BINARY, 1)},
}


def number_of(quantity: str | int) -> int:
    """The quantity in its own unit, such as bytes, rounded down. The schema admits no other spelling."""
    text = str(quantity)
    unit = next((unit for unit in (text[-2:], text[-1:]) if unit in _UNITS), "")
    return int(Decimal(text.removesuffix(unit)) * _UNITS.get(unit, 1))
