"""Live rows counted on a profile's bins."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from tests.model_server.serving import REVISION, Server, infer, infer_body, metric, run, save, served, serving

from serin_server.drift.build import build
from serin_server.drift.counter import MOST_FEATURES, VALUES_AT_ONCE, DriftCounter, render_reference
from serin_server.drift.profile import PREDICTION, Profile
from serin_server.failures import Reason
from serin_server.monitor.classes import class_outcome
from serin_server.protocol.datatypes import Array
from serin_server.protocol.rows import Columns
from serin_server.runtime.model import Predictions

NAN = float("nan")


def profile_of(*columns: Array, predictions: Array | None = None, classes: list[str] | None = None) -> Profile:
    return build({f"x{place}": column for place, column in enumerate(columns)}, predictions, classes, bins=4)


def counted(text: str, name: str) -> dict[tuple[str, str], int]:
    """The values of a family by feature and bin, those that are not 0."""
    found = {}
    for line in text.splitlines():
        series = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if series and float(series[2]):
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', series[1]))
            found[labels.get("feature", ""), labels.get("bin", "")] = int(series[2])
    return found


def predicted(*values: object) -> Predictions:
    return Predictions(np.array(values), {}, [class_outcome(value) for value in values])


async def test_rows_are_counted_a_moment_later_without_being_asked() -> None:
    counter = DriftCounter(profile_of(np.arange(4.0)), "m", "r")
    counted_by_itself = asyncio.Event()
    count = counter.count

    def noticed() -> None:
        count()
        counted_by_itself.set()

    counter.count = noticed  # type: ignore[method-assign]
    counter.add(np.array([[0.0], [3.0], [9.0], [-1.0]]), predicted("a", "a", "a", "a"))
    await asyncio.wait_for(counted_by_itself.wait(), 5)
    text = counter.render()
    assert counted(text, "serin_feature_bin_total") == {("x0", "[-Inf, 0.5)"): 2, ("x0", "[2.5, +Inf)"): 2}
    assert counted(text, "serin_feature_out_of_range_total") == {("x0", ""): 2}


async def test_texts_missing_values_and_classes() -> None:
    colours = np.array(["red"] * 20 + ["green"] * 10 + ["rare"], dtype=object)
    profile = profile_of(colours, np.arange(31.0), predictions=np.array(["a"] * 31), classes=["a", "b"])
    counter = DriftCounter(profile, "m", "r")
    counter.add(np.array([["red", 1.0], ["blue", NAN], [None, 1e9]], dtype=object), predicted("a", "b", "c"))
    found = counted(counter.render(), "serin_feature_bin_total")
    assert {key: rows for key, rows in found.items() if key[0] != "x1"} == {
        ("x0", "= red"): 1,
        ("x0", "other"): 1,
        ("x0", "missing"): 1,
        (PREDICTION, "= a"): 1,
        (PREDICTION, "= b"): 1,
        (PREDICTION, "other"): 1,
    }
    assert found["x1", "missing"] == 1


async def test_columns_by_name_and_rows_of_another_width() -> None:
    profile = profile_of(np.arange(4.0), np.array(["red"] * 20, dtype=object)[:4])
    counter = DriftCounter(profile, "m", "r")
    columns = {"x0": np.array([0.0, 3.0], np.float32), "x1": np.array(["red", ""], dtype=object)}
    for _ in range(2):
        counter.add(Columns(columns), predicted("a", "a"))
    counter.add(np.zeros((3, 7)), predicted("a", "a", "a"))
    text = counter.render()
    found = counted(text, "serin_feature_bin_total")
    assert found == {
        ("x0", "[-Inf, 0.5)"): 2,
        ("x0", "[2.5, +Inf)"): 2,
        ("x1", "other"): 2,
        ("x1", "missing"): 2,
    }
    assert counted(text, "serin_feature_rows_skipped_total") == {("", ""): 3}


async def test_numbers_that_are_predicted() -> None:
    counter = DriftCounter(profile_of(np.zeros(4), predictions=np.arange(4.0) + 0.5), "m", "r")
    counter.add(np.zeros((2, 1)), Predictions(np.array([0.5, 99.0]), {}, None))
    text = counter.render()
    assert counted(text, "serin_feature_bin_total")[PREDICTION, "[3, +Inf)"] == 1
    assert counted(text, "serin_feature_out_of_range_total") == {(PREDICTION, ""): 1}


VALUES = st.floats(width=32) | st.sampled_from([0.0, 1.0, 2.0, 3.0])


@settings(max_examples=50)
@given(st.lists(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=9), min_size=1, max_size=5))
def test_all_features_at_once_count_as_one_by_one(requests: list[list[tuple[float, ...]]]) -> None:
    profile = profile_of(np.arange(4.0), np.array([1.0, 1.0, 2.0, NAN]), np.full(4, NAN))

    async def count() -> str:
        counter = DriftCounter(profile, "m", "r")
        for rows in requests:
            counter.add(np.array(rows), predicted(*["a"] * len(rows)))
        return counter.render()

    text = asyncio.run(count())
    rows = np.array([row for request in requests for row in request])
    for place, feature in enumerate(profile.features):
        counts = np.bincount(feature.bins.indices(rows[:, place]), minlength=len(feature.counts))
        expected = {(feature.name, name): n for name, n in zip(feature.bin_names, counts.tolist(), strict=True) if n}
        found = counted(text, "serin_feature_bin_total")
        assert {key: n for key, n in found.items() if key[0] == feature.name} == expected


async def test_under_pressure_rows_are_left_out_and_told() -> None:
    counter = DriftCounter(profile_of(*[np.arange(4.0)] * 4), "m", "r")
    rows = VALUES_AT_ONCE  # a quarter of these have room
    counter.add(np.repeat(np.arange(rows, dtype=float)[:, None], 4, axis=1), predicted(*["a"] * rows))
    counter.add(np.zeros((5, 4)), predicted(*["a"] * 5))
    text = counter.render()
    taken = sum(n for (name, _), n in counted(text, "serin_feature_bin_total").items() if name == "x0")
    assert taken == rows // 4
    assert counted(text, "serin_feature_rows_skipped_total") == {("", ""): rows - taken + 5}
    counter.add(np.zeros((5, 4)), predicted(*["a"] * 5))
    assert counted(counter.render(), "serin_feature_rows_skipped_total") == {("", ""): rows - taken + 5}


async def test_so_many_features_are_counted() -> None:
    profile = profile_of(*[np.arange(4.0)] * (MOST_FEATURES + 1))
    counter = DriftCounter(profile, "m", "r")
    counter.add(np.zeros((1, MOST_FEATURES + 1)), predicted("a"))
    assert len(counted(counter.render(), "serin_feature_bin_total")) == MOST_FEATURES


def test_the_reference_is_told() -> None:
    text = render_reference(profile_of(np.array([0.0, 1.0, 1.0, NAN])), "m", "r")
    assert 'serin_feature_reference_ratio{bin="[0.5, +Inf)",feature="x0",model="m",revision="r"} 0.5' in text
    assert 'serin_feature_reference_ratio{bin="missing",feature="x0",model="m",revision="r"} 0.25' in text
    assert 'serin_feature_reference_rows{feature="x0",model="m",revision="r"} 4' in text


# --- the server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of irises with its profile beside it."""
    directory = tmp_path_factory.mktemp("profiled")
    features, classes = load_iris(return_X_y=True)
    np.savez(directory / "iris.npz", x=features)
    model = save(LogisticRegression(max_iter=1000).fit(features, classes), directory / "iris.joblib")
    assert run("profile", directory / "iris.npz", "--model", model).code == 0
    return model


@pytest.fixture(scope="module")
def server(profiled: Path) -> Iterator[Server]:
    with served("serve", str(profiled), "--model-name", "m", "--host", "127.0.0.1", "--port", "0") as server:
        yield server


SMALL, LARGE = [4.4, 3.0, 1.3, 0.2], [9.9, 3.0, 6.0, 2.4]


def bins(client: httpx.Client, feature: str) -> dict[str, float]:
    found = {}
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("serin_feature_bin_total{") and f'feature="{feature}"' in line:
            found[line.partition('bin="')[2].partition('"')[0]] = float(line.rpartition(" ")[2])
    return found


@pytest.mark.process
def test_a_server_counts_on_the_profile_beside_the_model(server: Server) -> None:
    with server.client() as client:
        assert metric(client, "serin_feature_reference_rows", feature="0") == 150
        before = bins(client, "0")
        assert len(before) == 11
        assert infer(client, {**infer_body(SMALL, LARGE)}).status_code == 200
        for apart in ({"x-envoy-attempt-count": "2"}, {"x-serin-tester": "1"}):
            assert infer(client, infer_body(SMALL), **apart).status_code == 200
        after = bins(client, "0")
        assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
            "[-Inf, 4.85)": 1,
            "[6.95, +Inf)": 1,
        }
        assert metric(client, "serin_feature_out_of_range_total", feature="0") == 1
        assert metric(client, "serin_feature_bin_total", feature=PREDICTION, bin="= 0") == 1


@pytest.mark.process
def test_several_processes_count_as_one_and_tell_one_reference(profiled: Path) -> None:
    arguments = ["--model-name", "m", "--host", "127.0.0.1", "--port", "0", "--processes", "2"]
    with served("serve", str(profiled), *arguments) as server:
        for _ in range(10):
            with server.client() as client:  # each connection goes to some process
                assert infer(client, infer_body(SMALL)).status_code == 200
        with server.client() as client:
            assert sum(bins(client, "0").values()) == 10
            assert metric(client, "serin_feature_reference_rows", feature="0") == 150


def test_without_a_profile_nothing_is_counted(client: httpx.Client) -> None:
    infer(client, infer_body(SMALL))
    assert "serin_feature" not in client.get("/metrics").text


@pytest.mark.process
def test_another_models_profile_ends_the_server(iris: Path, profiled: Path, tmp_path: Path) -> None:
    raw = json.loads(profiled.with_name("iris.joblib.profile.json").read_text())
    (tmp_path / "profile").write_text(json.dumps(raw | {"features": raw["features"][:3]}))
    done = run("serve", iris, "--port", "0", "--profile", tmp_path / "profile")
    assert done.code == Reason.PROFILE_MISMATCH.exit_code
    assert done.termination is not None
    assert done.termination["reason"] == "ProfileMismatch"
    assert "3 features, the model takes 4" in done.termination["message"]


@pytest.mark.process
def test_a_pod_serves_with_a_profile(profiled: Path) -> None:
    with serving(profiled, "--profile", f"{profiled}.profile.json") as server, server.client() as client:
        assert metric(client, "serin_feature_reference_rows", feature="3", revision=REVISION) == 150
