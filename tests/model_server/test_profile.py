"""Reference profiles: bins, the command that makes them, and what does not fit a model."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from tests.model_server.serving import run, save

from serin_server.cli import _parser
from serin_server.drift import profile as profiles
from serin_server.drift.bins import LEAST_NAMED, CategoryBins, NumericBins, category_bins, numeric_bins
from serin_server.drift.build import build, feature
from serin_server.failures import FatalError, Reason

NUMBERS = st.lists(st.floats(width=32, allow_infinity=False) | st.integers(-3, 3).map(float), min_size=1, max_size=200)


def counts_of(values: list[float], most: int) -> tuple[NumericBins, list[int]]:
    array = np.array(values, dtype=float)
    bins = numeric_bins(array, most)
    return bins, np.bincount(bins.indices(array), minlength=len(bins.names) + 1).tolist()


@given(NUMBERS, st.integers(2, 12))
def test_every_value_has_one_bin_and_its_interval_holds_it(values: list[float], most: int) -> None:
    bins, counts = counts_of(values, most)
    assert sum(counts) == len(values)
    assert counts[-1] == sum(map(math.isnan, values))
    assert len(bins.names) <= most
    assert list(bins.edges) == sorted(set(bins.edges))
    ends = [-math.inf, *bins.edges, math.inf]
    for value, place in zip(values, bins.indices(np.array(values)).tolist(), strict=True):
        assert math.isnan(value) or ends[place] <= value < ends[place + 1]


@given(NUMBERS, st.integers(2, 12))
def test_no_bin_of_the_reference_is_empty_and_the_range_holds_all(values: list[float], most: int) -> None:
    bins, counts = counts_of(values, most)
    finite = [value for value in values if not math.isnan(value)]
    if not finite:
        assert (bins.low, bins.high, bins.names) == (None, None, ["[-Inf, +Inf)"])
        return
    assert all(count > 0 for count in counts[:-1])
    assert bins.low is not None and bins.high is not None
    assert bins.low <= min(finite) and max(finite) <= bins.high


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100), st.integers(2, 12))
def test_single_precision_moves_no_value_across_an_edge(values: list[float], most: int) -> None:
    """Of values that single precision can tell apart: clients send what was trained on in either."""
    array = np.array(values, dtype=np.float32).astype(float)
    written = np.array([float(str(np.float32(value))) for value in array])
    bins = numeric_bins(written, most)
    assert (bins.indices(written) == bins.indices(array)).all()


def test_bins_of_continuous_values_have_about_equally_many() -> None:
    _, counts = counts_of(np.random.default_rng(0).normal(size=1000).tolist(), 10)
    assert counts == [100] * 10 + [0]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0.0, 1.0, 1.0], ["[-Inf, 0.5)", "[0.5, +Inf)"]),
        ([5.0], ["[-Inf, +Inf)"]),
        ([1.0, 2.0, 3.0], ["[-Inf, 1.5)", "[1.5, 2.5)", "[2.5, +Inf)"]),
        ([0.0] * 90 + [1.0, 2.0, 3.0, 4.0, 5.0], ["[-Inf, 0.5)", "[0.5, +Inf)"]),
        ([1234.5, 1234.6], ["[-Inf, 1234.55)", "[1234.55, +Inf)"]),
    ],
)
def test_edges_are_round_numbers_between_values(values: list[float], names: list[str]) -> None:
    assert numeric_bins(np.array(values), 3).names == names


def test_categories_are_the_most_frequent_and_rare_ones_are_not_named() -> None:
    values = np.array(["a"] * 30 + ["b"] * 40 + ["c"] * 20 + ["rare"] * (LEAST_NAMED - 1) + [None, ""], dtype=object)
    bins = category_bins(values, 2)
    assert bins.names == ["= b", "= a", "other"]
    assert np.bincount(bins.indices(values)).tolist() == [40, 30, 20 + LEAST_NAMED - 1, 2]
    assert category_bins(values, 10).categories == ("b", "a", "c")


COLUMNS = {
    "size": np.array([1.0, 2.0, np.nan, 4.0] * 10),
    "colour": np.array(["red", "green", "red", None] * 10, dtype=object),
    "old": np.array([True, False, True, True] * 10),
    "empty": np.full(40, np.nan),
}


def test_a_profile_and_its_json_are_the_same() -> None:
    found = build(COLUMNS, np.array(["yes", "no"] * 20), ["no", "yes"], bins=4)
    assert profiles.parse(json.loads(profiles.dump(found))) == found
    assert found.rows == 40
    size, colour, old, empty = found.features
    assert (size.datatype, size.counts, size.bin_names[-1]) == ("FP64", (10, 10, 10, 10), "missing")
    assert (colour.datatype, colour.counts) == ("BYTES", (20, 10, 0, 10))
    assert (old.datatype, old.counts, empty.counts) == ("BOOL", (10, 30, 0), (0, 40))
    assert found.predictions and found.predictions.counts == (20, 20, 0, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"serinProfile": 2}, '"serinProfile" must be 1'),
        ({"rows": -1}, "-1 is no count"),
        ({"rows": 39}, "do not add up to 39 rows"),
        ({"features": [{}]}, "it has no 'name'"),
        ({"features": 1}, "not iterable"),
        (
            {"predictions": {"datatype": "FP64", "missing": 0, "counts": [40], "edges": [1], "low": 0, "high": 1}},
            "2 bins",
        ),
        ({"predictions": {"datatype": "FP99", "missing": 0, "counts": [], "edges": []}}, "no datatype"),
    ],
)
def test_what_is_no_profile_is_told(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    raw = json.loads(profiles.dump(build(COLUMNS, None, None, bins=4)))
    (tmp_path / "it").write_text(json.dumps(raw | change))
    with pytest.raises(FatalError, match=told) as caught:
        profiles.read(tmp_path / "it")
    assert caught.value.reason is Reason.PROFILE_MISMATCH


@pytest.mark.parametrize(
    ("names", "count", "classes", "told"),
    [
        (("size", "colour", "old"), 3, ["no", "yes"], "has 'empty', which the model does not take"),
        (("size", "colour", "old", "empty", "new"), 5, ["no", "yes"], "lacks the model's 'new'"),
        (None, 5, ["no", "yes"], "has 4 features, the model takes 5"),
        (None, 4, None, "predictions are classes, the model predicts numbers"),
        (None, 4, ["no"], "have 'yes', which is no class of the model"),
    ],
)
def test_another_models_profile_does_not_fit(
    names: tuple[str, ...] | None, count: int, classes: list[str] | None, told: str
) -> None:
    found = build(COLUMNS, np.array(["yes", "no"] * 20), ["no", "yes"], bins=4)
    with pytest.raises(FatalError, match=told) as caught:
        profiles.check_fits(found, names, count, classes)
    assert caught.value.reason is Reason.PROFILE_MISMATCH


def test_a_profile_is_brought_into_the_models_order() -> None:
    found = build(COLUMNS, None, None, bins=4)
    names = ("empty", "old", "size", "colour")
    assert [each.name for each in profiles.check_fits(found, names, 4, None).features] == list(names)
    assert profiles.check_fits(found, None, None, None) == found


def test_dates_are_no_feature() -> None:
    with pytest.raises(FatalError, match="--ignore"):
        feature("day", np.array(["2020-01-01"], dtype="datetime64[D]"), 10)


# --- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Irises with their columns' names, the class in `target`, and a model of them beside."""
    features, classes = load_iris(return_X_y=True, as_frame=True)
    features.assign(target=classes).to_csv(tmp_path / "iris.csv", index=False)
    save(LogisticRegression(max_iter=1000).fit(features, classes), tmp_path / "iris.joblib")
    save(LinearRegression().fit(features.to_numpy(), classes), tmp_path / "line.joblib")
    np.save(tmp_path / "iris.npy", features.to_numpy())
    np.savez(tmp_path / "iris.npz", x=features.to_numpy(), y=classes.to_numpy())
    return tmp_path


def profiled(*arguments: str | Path) -> None:
    """`serin-server profile` in this process, which has imported already what a new one takes a second for."""
    options = _parser().parse_args(["profile", *map(str, arguments)])
    assert options.command(options) == 0


def raw_profile(path: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(path.read_text())
    return raw


@pytest.mark.process
def test_the_profile_of_a_model_lies_beside_it(data: Path) -> None:
    done = run("profile", data / "iris.csv", "--model", data / "iris.joblib")
    assert done.code == 0, done.stderr
    raw = raw_profile(data / "iris.joblib.profile.json")
    told = json.loads(done.stdout)
    assert (told["rows"], told["features"], told["predictions"]) == (150, 4, True)
    assert told["sha256"] == hashlib.sha256((data / "iris.joblib.profile.json").read_bytes()).hexdigest()
    assert raw["features"][0]["name"] == "sepal length (cm)"
    assert raw["predictions"]["categories"] == ["0", "1", "2"]
    assert sum(raw["predictions"]["counts"]) == 150


@pytest.mark.parametrize(
    ("file", "arguments", "names", "predictions"),
    [
        ("iris.npy", ["--model", "line.joblib"], ["0", "1", "2", "3"], "edges"),
        ("iris.npz", ["--predictions", "y"], ["0", "1", "2", "3"], "categories"),
        ("iris.csv", ["--ignore", "target", "--bins", "3"], None, None),
    ],
)
def test_other_data(
    data: Path, file: str, arguments: list[str], names: list[str] | None, predictions: str | None
) -> None:
    arguments = [str(data / each) if each.endswith(".joblib") else each for each in arguments]
    profiled(data / file, *arguments, "-o", data / "out")
    raw = raw_profile(data / "out")
    assert names is None or [each["name"] for each in raw["features"]] == names
    assert (raw["predictions"] is None) if predictions is None else (predictions in raw["predictions"])


@pytest.mark.parametrize(
    ("file", "arguments", "reason", "told"),
    [
        ("iris.joblib", [], Reason.INVALID_CONFIGURATION, "none of .csv"),
        ("gone.csv", [], Reason.NOT_FOUND, "cannot be read"),
        ("iris.csv", ["--ignore", "nose"], Reason.INVALID_CONFIGURATION, "no column nose"),
        ("iris.csv", ["--model", "line.joblib"], Reason.PROFILE_MISMATCH, "5 features, the model takes 4"),
        ("other.csv", ["--model", "iris.joblib"], Reason.PROFILE_MISMATCH, "lacks columns"),
        ("empty.csv", [], Reason.INVALID_CONFIGURATION, "has no rows"),
        ("pickled.npy", [], Reason.INVALID_CONFIGURATION, "cannot be read"),
    ],
)
def test_what_can_not_be_profiled_is_told(
    data: Path, file: str, arguments: list[str], reason: Reason, told: str
) -> None:
    pd.DataFrame({"a": [1.0]}).to_csv(data / "other.csv", index=False)
    (data / "empty.csv").write_text("a,b\n")
    np.save(data / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    arguments = [str(data / each) if each.endswith(".joblib") else each for each in arguments]
    with pytest.raises(FatalError, match=told) as caught:
        profiled(data / file, *arguments)
    assert caught.value.reason is reason


def test_category_bins_take_texts_and_bytes_alike() -> None:
    bins = CategoryBins(("red",))
    assert bins.indices(np.array([b"red", "red", "blue", math.nan], dtype=object)).tolist() == [0, 0, 1, 2]
