"""Objects that somebody else wrote, and that lack something."""

from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def holes(raw: Any, *path: str | int) -> Iterator[tuple[Path, Any]]:
    """The object with one field left out, or one list empty, in every possible way; and where."""
    for key, value in list(raw.items() if isinstance(raw, dict) else enumerate(raw)):
        here = (*path, key)
        if isinstance(raw, dict):
            yield here, {other: raw[other] for other in raw if other != key}
        if isinstance(value, list):
            yield (*here, "none"), {**raw, key: []}
        if isinstance(value, (dict, list)):
            for where, holed in holes(value, *here):
                yield where, {**raw, key: holed} if isinstance(raw, dict) else [*raw[:key], holed, *raw[key + 1 :]]
