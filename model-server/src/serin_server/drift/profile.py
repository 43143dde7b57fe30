"""A reference profile: how often each feature and the predictions fell into which bin. JSON, without any row."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serin_server.drift.bins import MISSING, Bins, CategoryBins, NumericBins
from serin_server.failures import FatalError, Reason
from serin_server.protocol.datatypes import DATATYPES

LAYOUT = 1
PREDICTION = "(prediction)"  # the name under which predictions are counted beside features
MAX_BYTES = 16 * 1024 * 1024
SUFFIX = ".profile.json"


@dataclass(frozen=True)
class Feature:
    """`counts` has one number for each bin, and that of missing values at the end."""

    name: str
    datatype: str
    bins: Bins
    counts: tuple[int, ...]

    @property
    def bin_names(self) -> list[str]:
        """The names that metrics and messages use, in the order of `counts`."""
        return [*self.bins.names, MISSING]


@dataclass(frozen=True)
class Profile:
    """Of `rows` reference rows; `predictions` is None where nobody said what the model predicts for them."""

    rows: int
    features: tuple[Feature, ...]
    predictions: Feature | None

    @property
    def all(self) -> tuple[Feature, ...]:
        """The features, and the predictions after them."""
        return self.features if self.predictions is None else (*self.features, self.predictions)


def dump(profile: Profile) -> str:
    """The profile as JSON, one feature a line. `parse` gives it back."""
    head = json.dumps({"serinProfile": LAYOUT, "rows": profile.rows})[1:-1]
    features = ",\n  ".join(json.dumps(_raw(feature), ensure_ascii=False) for feature in profile.features)
    predictions = None if profile.predictions is None else _raw(profile.predictions)
    last = json.dumps({"predictions": predictions}, ensure_ascii=False)[1:-1]
    return f'{{{head},\n "features": [\n  {features}],\n {last}}}\n'


def read(path: Path) -> Profile:
    """The profile in a file. Raises FatalError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FatalError(Reason.NOT_FOUND, f"the profile {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise FatalError(Reason.PROFILE_MISMATCH, f"{path} is larger than {MAX_BYTES} bytes, which no profile is")
    try:
        return parse(json.loads(data))
    except ValueError as error:
        raise FatalError(
            Reason.PROFILE_MISMATCH, f"{path} is not a profile that `serin-server profile` wrote: {error}"
        ) from error


def parse(raw: object) -> Profile:
    """The profile that the JSON value is. Raises ValueError for anything else."""
    try:
        if not isinstance(raw, dict) or raw["serinProfile"] != LAYOUT:
            raise ValueError(f'"serinProfile" must be {LAYOUT}')
        rows, predictions = _whole(raw["rows"]), raw["predictions"]
        profile = Profile(
            rows,
            tuple(_feature(item) for item in raw["features"]),
            None if predictions is None else replace(_feature({**predictions, "name": PREDICTION})),
        )
    except KeyError as error:
        raise ValueError(f"it has no {error}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    names = [feature.name for feature in profile.all]
    if len(set(names)) < len(names):
        raise ValueError("two features have the same name")
    for feature in profile.all:
        if sum(feature.counts) != rows:
            raise ValueError(f"the counts of {feature.name} do not add up to {rows} rows")
    return profile


def check_fits(
    profile: Profile, names: Sequence[str] | None, count: int | None, classes: Sequence[str] | None
) -> Profile:
    """The profile with its features in the model's order. Raises FatalError when it is another model's.

    names, count: of the model's features, None when it does not say. classes: its classes, None for a regression.
    """
    own = [feature.name for feature in profile.features]
    if names is not None:
        missing, unknown = _first(set(names) - set(own)), _first(set(own) - set(names))
        if missing or unknown:
            told = [f"lacks the model's {missing}"] if missing else []
            told += [f"has {unknown}, which the model does not take"] if unknown else []
            raise _mismatch(f"the profile {' and '.join(told)}")
        by_name = {feature.name: feature for feature in profile.features}
        profile = replace(profile, features=tuple(by_name[name] for name in names))
    elif count is not None and len(own) != count:
        raise _mismatch(f"the profile has {len(own)} features, the model takes {count}")
    if profile.predictions is not None:
        bins = profile.predictions.bins
        if classes is None and isinstance(bins, CategoryBins):
            raise _mismatch("the profile's predictions are classes, the model predicts numbers")
        if classes is not None and isinstance(bins, NumericBins):
            raise _mismatch("the profile's predictions are numbers, the model predicts classes")
        if classes is not None and isinstance(bins, CategoryBins) and set(bins.categories) - set(classes):
            unknown = _first(set(bins.categories) - set(classes))
            raise _mismatch(f"the profile's predictions have {unknown}, which is no class of the model")
    return profile


def _mismatch(what: str) -> FatalError:
    return FatalError(
        Reason.PROFILE_MISMATCH, f"{what}: make one from this model's training data with `serin-server profile`"
    )


def _first(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _raw(feature: Feature) -> dict[str, Any]:
    *counts, missing = feature.counts
    head: dict[str, Any] = {"datatype": feature.datatype, "missing": missing, "counts": counts}
    if feature.name != PREDICTION:
        head = {"name": feature.name, **head}
    if isinstance(feature.bins, CategoryBins):
        return {**head, "categories": feature.bins.categories}
    return {**head, "edges": feature.bins.edges, "low": feature.bins.low, "high": feature.bins.high}


def _feature(raw: Mapping[str, Any]) -> Feature:
    name, datatype = raw["name"], raw["datatype"]
    if not isinstance(name, str) or datatype not in DATATYPES:
        raise ValueError(f"{name!r} is no name, or {datatype!r} no datatype")
    bins: Bins
    if "categories" in raw:
        bins = CategoryBins(tuple(raw["categories"]))
        if not all(isinstance(each, str) for each in bins.categories) or len(set(bins.categories)) < len(
            bins.categories
        ):
            raise ValueError(f"the categories of {name} must be texts, each once")
    else:
        bins = NumericBins(tuple(map(float, raw["edges"])), _end(raw["low"]), _end(raw["high"]))
        if not all(map(math.isfinite, bins.edges)) or sorted(set(bins.edges)) != list(bins.edges):
            raise ValueError(f"the edges of {name} must be finite numbers that ascend")
    counts = (*map(_whole, raw["counts"]), _whole(raw["missing"]))
    if len(counts) != len(bins.names) + 1:
        raise ValueError(f"{name} has {len(bins.names)} bins and {len(counts) - 1} counts")
    return Feature(name, datatype, bins, counts)


def _end(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
