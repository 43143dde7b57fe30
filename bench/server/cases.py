"""What is compared: models, rows of a request, protocols, and the rates at which the latency is measured."""

from dataclasses import dataclass
from enum import StrEnum

from bench.server.models import MODELS, Model


class Wire(StrEnum):
    """How a request travels."""

    JSON = "JSON"
    BINARY = "binary"
    GRPC = "gRPC"


@dataclass(frozen=True)
class Case:
    """One comparison. `rate`: requests a second that each server holds, so that no queue grows without end."""

    model: Model
    rows: int
    wire: Wire
    rate: float

    @property
    def key(self) -> str:
        return f"{self.model.key}-{self.rows}-{self.wire.lower()}"

    @property
    def title(self) -> str:
        return f"{self.model.key}, {self.rows} row{'s' if self.rows > 1 else ''}, {self.wire}"


# A hundred rows and trees are slow in the peers: what the slowest of them holds on one core.
_RATES = {
    ("iris", 1): 300,
    ("iris", 100): 150,
    ("forest", 1): 40,
    ("forest", 100): 25,
    ("boosting", 1): 100,
    ("boosting", 100): 50,
}

CASES = tuple(
    Case(model, rows, wire, _RATES[model.key, rows]) for model in MODELS for rows in (1, 100) for wire in Wire
)
