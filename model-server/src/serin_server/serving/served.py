"""A model as it is served: under a name, with what batches, counts and signs its predictions."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from serin_server.monitor.attempts import Attempt
from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.protocol.datatypes import datatype_name
from serin_server.protocol.errors import invalid
from serin_server.protocol.metadata import OUTPUTS, PREDICT, PREDICTION_ID, ModelMetadata, input_specs
from serin_server.protocol.tensors import InferResponse, RequestedOutput, Tensor
from serin_server.runtime.batcher import Batcher
from serin_server.runtime.model import Model

if TYPE_CHECKING:
    from serin_server.serving.inquiry import Inquiry


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
    shadow: Watcher | None = None  # looks at those alone that two revisions answer

    @cached_property
    def metadata(self) -> ModelMetadata:
        model = self.model
        return ModelMetadata(
            name=self.name,
            versions=(self.version,),
            platform=model.platform,
            inputs=input_specs(model.signature),
            outputs=model.outputs,
            properties={"model": model.description, "acceleration": model.acceleration, "revision": self.revision},
        )

    @cached_property
    def _defaults(self) -> tuple[Sequence[str], Sequence[str]]:
        main = self.model.main
        return ((main, PREDICTION_ID) if main == PREDICT else (main,)), ()

    def wanted(self, outputs: Sequence[RequestedOutput] | None) -> tuple[Sequence[str], Sequence[str]]:
        """The names of the outputs to answer, and those to compute beside the main one. Raises RequestError."""
        if outputs is None:
            return self._defaults
        model = self.model
        names = tuple(dict.fromkeys(output.name for output in outputs))
        for name in names:
            if name in model.methods or (name == PREDICTION_ID and model.main == PREDICT):
                continue
            if name in OUTPUTS:
                raise invalid(f"the model has no {name}")
            known = [*model.methods, *([PREDICTION_ID] if model.main == PREDICT else [])]
            raise invalid(f"there is no output {name!r}: use {', '.join(known)}")
        return names, tuple(name for name in model.methods if name in names and name != model.main)

    def respond(self, inquiry: "Inquiry") -> InferResponse:
        """The answer made of an inquiry's predictions; counts the rows in it. Raises RequestError."""
        wanted, attempt, request = inquiry.wanted, inquiry.attempt, inquiry.request
        predictions = inquiry.predictions
        outcomes = predictions.outcomes
        if outcomes is None and request.outputs is not None and PREDICTION_ID in wanted:
            raise invalid(f"there is no {PREDICTION_ID}: the model predicts several values a row, which no label fits")
        now = time.time()
        outputs = []
        for name in wanted:
            if name != PREDICTION_ID:
                array = predictions.values if name == self.model.main else predictions.extras[name]
                outputs.append(Tensor(name, datatype_name(array), array))
            elif outcomes is not None:
                ids = np.array(self.tokens.issue(outcomes, now, attempt), dtype=np.object_)
                outputs.append(Tensor(name, "BYTES", ids))
        self.count(outcomes, PREDICTION_ID in wanted, now, attempt)
        return InferResponse(self.name, self.version, request.id, outputs)

    def count(self, outcomes: Sequence[Outcome] | None, with_ids: bool, now: float, attempt: Attempt) -> None:
        """Count rows with ids, and predicted classes; values of a regression have no bounded set of labels."""
        if outcomes is None:
            return
        if with_ids:
            self.metrics.issued(len(outcomes), attempt, now)
        if outcomes[0].kind is not Kind.QUANTITY:
            one = len(outcomes) == 1
            rows = {outcomes[0].text: 1} if one else Counter(outcome.text for outcome in outcomes)
            self.metrics.predicted(rows.items(), attempt)
