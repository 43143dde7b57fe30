"""The commonest request, read without looking at each of its values: one tensor of doubles as JSON, and no wishes.

What is read here is read in the same way by `requests`, only slower. Whatever is otherwise, a mistake included, is
left to that: nothing here refuses.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from serin_server.protocol.datatypes import Array
from serin_server.protocol.requests import Signature

# Of the names `inputs`, `name`, `shape`, `datatype` and `data`, and of the texts of `name` and `datatype`.
_QUOTES = 2 * 7
_QUOTES_WITH_ID = 2 * 9  # and of the name `id` and its text


class PlainRequest(NamedTuple):
    """`rows` are [rows, features]."""

    id: str | None
    rows: Array


def plain_features(signature: Signature) -> int | None:
    """How many features a row of a plain request has, None for a model that must look closer at its input."""
    if signature.categories:  # no matrix of doubles has them
        return None
    if signature.categories is not None or (signature.inputs is not None and len(signature.inputs[0].shape) > 2):
        return None
    return signature.features or None


def read_plain(body: bytes, features: int) -> PlainRequest | None:
    """The request, None when it is not plain.

    Every text of a JSON document has two quotes. If there are just those of the texts that were found, none is left for
    the data; and without `true`, `false` and `null` all of them are numbers, which JSON has no infinite ones of.
    """
    quotes = body.count(b'"')
    if quotes not in (_QUOTES, _QUOTES_WITH_ID) or _may_have_words(body):
        return None
    try:
        message = orjson.loads(body)
        return _read(message, quotes == _QUOTES_WITH_ID, features)
    except (ValueError, TypeError, LookupError):  # not JSON, or something is of another type or missing
        return None


def _may_have_words(body: bytes) -> bool:
    """Whether the body may have one of JSON's three; a single letter, which no plain name has, is found sooner."""
    return (b"l" in body and (b"false" in body or b"null" in body)) or (b"r" in body and b"true" in body)


def _read(message: Any, has_id: bool, features: int) -> PlainRequest | None:
    """Of a document that has as many texts as a plain request. May raise TypeError, ValueError or LookupError."""
    if type(message) is not dict or len(message) != 1 + has_id:
        return None
    request_id = message["id"] if has_id else None
    (tensor,) = message["inputs"]
    if len(tensor) != 4 or tensor["datatype"] != "FP64":
        return None
    shape, data = tensor["shape"], tensor["data"]
    rows, width = shape
    if not (
        type(rows) is type(width) is int
        and rows > 0
        and width == features
        and type(shape) is type(data) is list
        and type(tensor["name"]) is str
        and (request_id is None or type(request_id) is str)
    ):
        return None
    if type(data[0]) is list:
        if len(data) != rows or set(map(len, data)) != {features}:
            return None
        return PlainRequest(
            request_id, np.fromiter(chain.from_iterable(data), np.float64, rows * features).reshape(shape)
        )
    if len(data) != rows * features:
        return None
    return PlainRequest(request_id, np.fromiter(data, np.float64, len(data)).reshape(shape))
