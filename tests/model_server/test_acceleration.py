"""What is computed by ONNX instead of scikit-learn answers as before; what cannot, stays and says why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.model_server import estimators

from serin_server.runtime.acceleration import Accelerate, accelerate, child, memory, trial
from serin_server.runtime.acceleration.accelerated import Accelerated
from serin_server.runtime.acceleration.convert import convert
from serin_server.runtime.acceleration.rows import reference_rows
from serin_server.runtime.acceleration.trial import TOLERANCE, compare, takes_singles
from serin_server.runtime.acceleration.unsupported import UnsupportedError
from serin_server.runtime.model import Model

ROWS, CLASSES = make_classification(300, 6, n_informative=4, n_classes=3, random_state=0)
WORDS = np.array(["low", "middle", "high"])[CLASSES]
VALUES = ROWS[:, 0] * 3 + CLASSES

CLASSIFIERS = {
    "logistic regression": LogisticRegression().fit(ROWS, WORDS),
    "two classes": LogisticRegression().fit(ROWS, CLASSES > 1),
    "tree": DecisionTreeClassifier(random_state=0).fit(ROWS, WORDS),
    "a tree of one leaf": DecisionTreeClassifier().fit(ROWS, np.zeros(300)),
    "forest": RandomForestClassifier(10, random_state=0).fit(ROWS, WORDS),
    "forest of two classes with impure leaves": RandomForestClassifier(10, max_depth=3).fit(ROWS, CLASSES > 1),
    "extremely random trees": ExtraTreesClassifier(8, random_state=0).fit(ROWS, CLASSES),
    "gradient boosting": GradientBoostingClassifier(n_estimators=5).fit(ROWS, WORDS),
    "gradient boosting from zero": GradientBoostingClassifier(n_estimators=5, init="zero").fit(ROWS, CLASSES > 1),
    "histogram gradient boosting": HistGradientBoostingClassifier(max_iter=5).fit(ROWS, WORDS),
    "the same of two classes": HistGradientBoostingClassifier(max_iter=5).fit(ROWS, CLASSES > 1),
    "a pipeline that ends in trees": make_pipeline(StandardScaler(), RandomForestClassifier(5)).fit(ROWS, WORDS),
    "a pipeline": make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, WORDS),
    "naive Bayes": GaussianNB().fit(ROWS, WORDS),
    "network": MLPClassifier((5,), max_iter=5).fit(ROWS, WORDS),
}
REGRESSIONS = {
    "linear": LinearRegression().fit(ROWS, VALUES),
    "tree": DecisionTreeRegressor(max_depth=4).fit(ROWS, VALUES),
    "forest": RandomForestRegressor(10, random_state=0).fit(ROWS, VALUES),
    "gradient boosting": GradientBoostingRegressor(n_estimators=5).fit(ROWS, VALUES),
    "histogram gradient boosting": HistGradientBoostingRegressor(max_iter=5).fit(ROWS, VALUES),
    "a logarithmic link": HistGradientBoostingRegressor(loss="poisson", max_iter=5).fit(ROWS, CLASSES),
}
STAY = {
    "another loss": (GradientBoostingClassifier(loss="exponential").fit(ROWS, CLASSES > 1), "its loss is exponential"),
    "several targets": (DecisionTreeRegressor().fit(ROWS, np.c_[VALUES, VALUES]), "several targets"),
    "a kind that is not converted": (DummyClassifier().fit(ROWS, CLASSES), "DummyClassifier is not among the kinds"),
    "categories": (
        HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]).fit(np.c_[CLASSES, ROWS], CLASSES),
        "categorical features",
    ),
}


def accelerated(estimator: Any) -> Accelerated:
    graph, kept_steps, exact = convert(estimator)
    made = Accelerated(estimator, graph.SerializeToString(), kept_steps, exact, singles=True)
    singles = takes_singles(estimator, made, ROWS)
    return Accelerated(estimator, graph.SerializeToString(), kept_steps, exact, singles)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_answers_as_before(name: str) -> None:
    original = CLASSIFIERS[name]
    made = accelerated(original)
    for rows in (ROWS, ROWS[:1], ROWS.astype(np.float32), np.round(ROWS).astype(np.int64)):
        assert made.predict(rows).tolist() == original.predict(rows).tolist()
        labels, probabilities = made.predict_with_probabilities(rows)
        assert labels.tolist() == original.predict(rows).tolist()
        np.testing.assert_allclose(probabilities, original.predict_proba(rows), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_answers_as_before(name: str) -> None:
    original = REGRESSIONS[name]
    made = accelerated(original)
    for rows in (ROWS, ROWS[:1], ROWS.astype(np.float32)):
        np.testing.assert_allclose(made.predict(rows), original.predict(rows), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["tree", "forest", "histogram gradient boosting"])
def test_rows_on_a_threshold_go_the_same_way(name: str) -> None:
    for original in (CLASSIFIERS[name], REGRESSIONS[name]):
        rows = reference_rows(original)
        assert rows.shape[0] > 600  # those at thresholds are among them
        compare(original, accelerated(original), rows)


def test_nearly_tied_rows_are_the_originals() -> None:
    original = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    tie = -float(original.intercept_[0] / original.coef_[0, 0])
    rows = np.array([[np.nextafter(tie, side)] for side in (-np.inf, np.inf)] + [[tie], [3.0]])
    graph, _, exact = convert(original)
    made = Accelerated(original, graph.SerializeToString(), 0, exact, singles=False)
    assert not exact
    assert made.predict(rows).tolist() == original.predict(rows).tolist()


@pytest.mark.parametrize("name", STAY)
def test_what_is_not_converted_says_why(name: str) -> None:
    original, reason = STAY[name]
    with pytest.raises(UnsupportedError, match=reason):
        convert(original)


def test_a_conversion_that_answers_otherwise_is_turned_down() -> None:
    original, other = (LogisticRegression(C=c).fit(ROWS, CLASSES) for c in (1.0, 0.001))
    with pytest.raises(UnsupportedError, match="another label"):
        compare(original, accelerated(other), ROWS)
    original, other = (LinearRegression().fit(ROWS, values) for values in (VALUES, VALUES + 0.001))
    with pytest.raises(UnsupportedError, match="differs by"):
        compare(original, accelerated(other), ROWS)


def test_a_model_of_scikit_learns_is_accelerated_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_measure", lambda *_: (2e-3, 1e-3))
    original = CLASSIFIERS["forest"]
    outcome = accelerate(original, Accelerate.AUTO)
    assert outcome.accelerated
    assert "one row takes 1000 µs instead of 2000 µs" in outcome.reason
    model, before = Model(outcome.estimator), Model(original)
    assert (model.classes, model.signature) == (before.classes, before.signature)
    assert model.outputs == before.outputs
    assert model.predict(ROWS, ["predict_proba"]).values.tolist() == original.predict(ROWS).tolist()


def test_a_conversion_that_is_no_faster_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_measure", lambda *_: (1e-3, 0.9e-3))
    outcome = accelerate(CLASSIFIERS["forest"], Accelerate.AUTO)
    assert outcome.estimator is CLASSIFIERS["forest"]
    assert outcome.reason == "not accelerated: it is not faster as ONNX"


@pytest.mark.parametrize(
    ("estimator", "wish", "reason"),
    [
        (CLASSIFIERS["forest"], Accelerate.NEVER, "not asked for"),
        (estimators.Words(), Accelerate.AUTO, "not an estimator of scikit-learn's own"),
        (DummyClassifier().fit(ROWS, CLASSES), Accelerate.AUTO, "not among the kinds"),
        (LogisticRegression(), Accelerate.AUTO, "not accelerated"),  # was never fitted
    ],
)
def test_what_stays_says_why(estimator: Any, wish: Accelerate, reason: str) -> None:
    outcome = accelerate(estimator, wish)
    assert outcome.estimator is estimator
    assert reason in outcome.reason


def endless(_estimator: Any) -> None:
    while True:
        pass


def test_a_conversion_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "try_to_convert", endless)
    monkeypatch.setattr(child, "CPU_SECONDS", 1)
    assert "ended with exit code" in accelerate(CLASSIFIERS["tree"], Accelerate.AUTO).reason
    monkeypatch.setattr(child, "CPU_SECONDS", 100)
    monkeypatch.setattr(child, "WALL_SECONDS", 0.1)
    assert "longer than 0.1 s" in accelerate(CLASSIFIERS["tree"], Accelerate.AUTO).reason


def greedy(_estimator: Any) -> None:
    bytes(2**34)


def test_a_conversion_that_takes_too_much_memory_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the container's limit: over that, the kernel ends the server."""
    monkeypatch.setattr(child, "free_bytes", lambda: 2**30)
    monkeypatch.setattr(trial, "try_to_convert", greedy)
    assert "more than the 768 MiB of memory" in accelerate(CLASSIFIERS["tree"], Accelerate.AUTO).reason


@pytest.mark.parametrize(("limit", "free"), [("max", None), (str(2**62), None), ("1000", 1000 - 700 + 400)])
def test_the_room_is_what_the_container_may_still_use(tmp_path: Path, limit: str, free: int | None) -> None:
    group = memory._Group(tmp_path / "max", tmp_path / "current", tmp_path / "stat", "inactive_file")
    group.limit.write_text(limit + "\n")
    group.used.write_text("700\n")
    group.statistics.write_text("anon 300\ninactive_file 400\n")
    found = memory.free_bytes((group,))
    assert found == free if free else found > 2**20


def test_text_is_left_to_the_original() -> None:
    rows = np.array([["1.5", "0", "0", "0", "0", "0"]], dtype=object)
    original = CLASSIFIERS["forest"]
    assert accelerated(original).predict(rows).tolist() == original.predict(rows).tolist()
