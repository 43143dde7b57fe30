"""One text form for predictions and true labels, comparable weeks later and by other servers."""

import hashlib
import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import IntEnum

import numpy as np

# Bytes of UTF-8. Longer texts keep their start and end in a hash of the whole, which is still comparable.
TEXT_LIMIT = 48
_HASH_DIGITS = 16


class Kind(IntEnum):
    """What a prediction is. The numbers are part of the prediction id's format: never change one."""

    TEXT = 0
    NUMBER = 1
    BOOLEAN = 2
    QUANTITY = 3  # not a class: a regression's value, for example


@dataclass(frozen=True, slots=True)
class Outcome:
    """A predicted value in text form, at most TEXT_LIMIT bytes."""

    kind: Kind
    text: str


def class_outcome(value: object) -> Outcome:
    """The outcome for one element of a classifier's `classes_`."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return Outcome(Kind.BOOLEAN, _boolean_text(value))
    if isinstance(value, int | float):
        return Outcome(Kind.NUMBER, bounded(_number_text(value)))
    return Outcome(Kind.TEXT, bounded(str(value)))


def quantity_outcome(value: object) -> Outcome:
    """The outcome for a prediction that is not a class. A float keeps all of its digits, 24 at most."""
    return Outcome(Kind.QUANTITY, bounded(str(value)))


def quantity_of(outcome: Outcome) -> Decimal | None:
    """The number that was predicted; None when it was none, or not a finite one."""
    try:
        number = Decimal(outcome.text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def error_of(label: object, predicted: Decimal) -> float:
    """How far a predicted number is from its JSON label, as a number that is not negative.

    Computed in decimals, as people write them: 1.1 is within 0.1 of 1.0. Raises ValueError, with a text for the user,
    when the label is not a finite number.
    """
    if isinstance(label, bool):
        raise ValueError("the label must be a number, as the prediction is")
    actual = Decimal(str(_as_number(label)))
    error = float(abs(actual - predicted)) if actual.is_finite() else math.inf
    if not math.isfinite(error):
        raise ValueError("the label must be a finite number, no further from the prediction than 1e308")
    return error


def label_text(label: object, kind: Kind) -> str:
    """The text of a JSON label, as an equal class of this kind has it: for numbers 3, 3.0 and "3" agree.

    Raises ValueError, with a text for the user, when the label cannot be of this kind.
    """
    if kind is Kind.NUMBER:
        return bounded(_number_text(_as_number(label)))
    if kind is Kind.BOOLEAN:
        return _boolean_text(_as_boolean(label))
    if isinstance(label, str):
        return bounded(label)
    if isinstance(label, bool):
        return _boolean_text(label)
    if isinstance(label, int | float):
        return bounded(_number_text(label))
    raise ValueError("the label must be a string, a number or a boolean")


def _as_number(label: object) -> int | float:
    if isinstance(label, int | float):  # true and false too, which count as 1 and 0
        return label
    if isinstance(label, str):
        for number in (int, float):
            try:
                return number(label)
            except ValueError:
                continue
    raise ValueError("the label must be a number, as the prediction is")


def _as_boolean(label: object) -> bool:
    text = label.strip().lower() if isinstance(label, str) else label
    if text in (True, "true", "1"):  # 1 and 1.0 equal True
        return True
    if text in (False, "false", "0"):
        return False
    raise ValueError("the label must be true or false, as the predicted class is")


def _boolean_text(value: bool) -> str:
    return "true" if value else "false"


def _number_text(value: int | float) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("the label must be a finite number")
        return str(int(value)) if value.is_integer() else repr(value)
    return str(int(value))


def bounded(text: str) -> str:
    """The text itself, or when it is longer than TEXT_LIMIT bytes its start with a hash of all of it."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= TEXT_LIMIT:
        return encoded.decode()
    start = encoded[: TEXT_LIMIT - _HASH_DIGITS - 1].decode(errors="ignore")
    return f"{start}~{hashlib.sha256(encoded).hexdigest()[:_HASH_DIGITS]}"
