"""Decoding of labels that arrive later."""

from dataclasses import dataclass

from serin_server.protocol.errors import invalid
from serin_server.protocol.requests import parse_json

MAX_LABELS = 10_000


@dataclass(frozen=True, slots=True)
class Label:
    """The true outcome of one prediction; `value` is any JSON value, judged when the prediction is known."""

    prediction_id: str
    value: object


def parse_feedback(body: bytes) -> list[Label]:
    """Decode `[{"prediction_id": "...", "label": ...}]`. Raises RequestError (400) when malformed."""
    items = parse_json(body)
    if not isinstance(items, list):
        raise invalid('the body must be an array of {"prediction_id": "...", "label": ...}')
    if len(items) > MAX_LABELS:
        raise invalid(f"one request takes at most {MAX_LABELS} labels, this one has {len(items)}")
    labels = []
    for position, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("prediction_id"), str) or "label" not in item:
            raise invalid(f"item {position} must be an object with prediction_id (a string) and label")
        labels.append(Label(item["prediction_id"], item["label"]))
    return labels
