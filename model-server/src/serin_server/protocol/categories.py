"""Features whose values are of a set that the model learnt: which values a request may have for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from serin_server.protocol.datatypes import Array
from serin_server.protocol.errors import invalid
from serin_server.protocol.rows import Columns, Rows

_MOST_TOLD = 5


@dataclass(frozen=True)
class Categories:
    """The values that a model knows of a feature, in its order: all texts or all numbers.

    `others`: it takes unknown values as well, as if they were missing. `dtype`: numpy's name of the numbers' datatype,
    where the model minds.
    """

    values: tuple[object, ...]
    others: bool
    dtype: str | None = None

    @cached_property
    def _known(self) -> frozenset[object]:
        return frozenset(self.values)

    def check(self, name: str, array: Array) -> None:
        """Raises RequestError (400) for a column that the model would not understand, or misunderstand."""
        are_texts = isinstance(self.values[0], str)
        if are_texts != (array.dtype == np.object_):
            raise invalid(f"{name} has categories, which are {'strings' if are_texts else 'numbers'}")
        if self.others:
            return
        given = (value for value in dict.fromkeys(array.tolist()) if value is not None and value == value)
        unknown = next((value for value in given if value not in self._known), None)
        if unknown is not None:
            told = ", ".join(map(str, self.values[:_MOST_TOLD]))
            more = len(self.values) - _MOST_TOLD
            raise invalid(
                f"{name} is {unknown!r}, which is not among the categories that the model knows: {told}"
                + (f" and {more} more" if more > 0 else "")
            )


def check_categories(rows: Rows, categories: Mapping[str, Categories]) -> None:
    """Check the features of a model that takes numbers but for these. Raises RequestError (400)."""
    if not isinstance(rows, Columns):
        if categories:
            told = ", ".join(list(categories)[:_MOST_TOLD])
            raise invalid(f"some features have categories ({told}): send each feature as a tensor of its own")
        return
    for name, array in rows.arrays.items():
        if name in categories:
            categories[name].check(name, array)
        elif array.dtype == np.object_:
            raise invalid(f"{name} holds strings, the model takes numbers")
