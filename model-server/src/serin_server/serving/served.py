"""A model as it is served: under a name, with what batches, counts and signs its predictions."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.protocol.datatypes import datatype_name
from serin_server.protocol.errors import invalid
from serin_server.protocol.tensors import InferResponse, RequestedOutput, Tensor
from serin_server.runtime.batcher import Batcher
from serin_server.runtime.model import Model, Predictions

if TYPE_CHECKING:
    from serin_server.serving.inquiry import Inquiry

PREDICT = "predict"
PROBABILITIES = "predict_proba"
PREDICTION_ID = "prediction_id"


class Watcher(Protocol):
    """Looks at the inferences that were answered, such as to log them or to count their values."""

    def answered(self, inquiry: "Inquiry", response: InferResponse) -> None:
        """Called on the event loop after the answer was sent: it must be quick, and must not raise."""


@dataclass(frozen=True)
class ServedModel:
    """What all transports serve."""

    model: Model
    batcher: Batcher
    tokens: Tokens
    metrics: Metrics
    name: str
    version: str
    revision: str
    watchers: tuple[Watcher, ...] = ()

    def wanted(self, outputs: Sequence[RequestedOutput] | None) -> Sequence[str]:
        """The names of the outputs to answer. Raises RequestError."""
        if outputs is None:
            return (PREDICT, PREDICTION_ID)
        names = tuple(dict.fromkeys(output.name for output in outputs))
        for name in names:
            if name not in (PREDICT, PROBABILITIES, PREDICTION_ID):
                raise invalid(f"there is no output {name!r}: use {PREDICT}, {PROBABILITIES} or {PREDICTION_ID}")
        if PROBABILITIES in names and not self.model.has_probabilities:
            raise invalid(f"the model has no {PROBABILITIES}")
        return names

    def respond(self, inquiry: "Inquiry") -> InferResponse:
        """The answer made of an inquiry's predictions; counts the rows in it. Raises RequestError."""
        wanted, retry, request = inquiry.wanted, inquiry.retry, inquiry.request
        predictions = inquiry.predictions
        outcomes = predictions.outcomes
        if outcomes is None and request.outputs is not None and PREDICTION_ID in wanted:
            raise invalid(f"there is no {PREDICTION_ID}: the model predicts several values a row, which no label fits")
        now = time.time()
        outputs = [self._output(name, predictions, now, retry) for name in wanted]
        self._count(outcomes, PREDICTION_ID in wanted, now, retry)
        found = [output for output in outputs if output is not None]
        return InferResponse(self.name, self.version, request.id, found)

    def _output(self, name: str, predictions: Predictions, now: float, retry: bool) -> Tensor | None:
        if name == PREDICT:
            return Tensor(name, datatype_name(predictions.values), predictions.values)
        if name == PROBABILITIES and predictions.probabilities is not None:
            return Tensor(name, datatype_name(predictions.probabilities), predictions.probabilities)
        if name == PREDICTION_ID and predictions.outcomes is not None:
            ids = np.array(self.tokens.issue(predictions.outcomes, now, retry), dtype=np.object_)
            return Tensor(name, "BYTES", ids)
        return None

    def _count(self, outcomes: Sequence[Outcome] | None, with_ids: bool, now: float, retry: bool) -> None:
        """Count rows with ids, and predicted classes; values of a regression have no bounded set of labels."""
        if outcomes is None:
            return
        attempt = "retry" if retry else "first"
        if with_ids:
            self.metrics.issued(len(outcomes), attempt, now)
        if outcomes[0].kind is not Kind.QUANTITY:
            one = len(outcomes) == 1
            rows = {outcomes[0].text: 1} if one else Counter(outcome.text for outcome in outcomes)
            self.metrics.predicted(rows.items(), attempt)
