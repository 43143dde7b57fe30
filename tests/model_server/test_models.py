"""Kinds of models: what each takes and answers, through the application without a process around it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.model_server import estimators
from tests.model_server.serving import KEY, infer_body, outputs, serving_settings

from serin_server.monitor.keys import Keyring
from serin_server.processes import shared
from serin_server.runtime.model import Model
from serin_server.serve import Loaded, make_app
from serin_server.web.limits import Limits
from serin_server.web.server import Server, listen


@asynccontextmanager
async def application(estimator: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = serving_settings()
    server = Server(
        make_app(Loaded(settings, Model(estimator), Keyring.of(KEY), 0.0)),
        Limits(settings.max_body_bytes),
        drain_seconds=1,
    )
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with asyncio.TaskGroup() as tasks, httpx.AsyncClient(base_url=url) as client:
        tasks.create_task(server.serve(listener))
        yield client
        server.stop()


async def infer(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    return await client.post("/v2/models/m/infer", json=body)


async def give_label(client: httpx.AsyncClient, prediction_id: str, label: object) -> dict[str, Any]:
    body = [{"prediction_id": prediction_id, "label": label}]
    receipt: dict[str, Any] = (await client.post("/v2/models/m/feedback", json=body)).json()
    return receipt


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")  # as the server's process does
async def test_named_features_come_as_columns_in_any_order() -> None:
    rows = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    model = DecisionTreeClassifier().fit(rows, ["none", "b", "a", "both"])
    model.feature_names_in_ = np.array(["a", "b"], dtype=object)
    b = {"name": "b", "shape": [2], "datatype": "INT64", "data": [0, 1]}
    a = {"name": "a", "shape": [2, 1], "datatype": "INT64", "data": [1, 0]}
    async with application(model) as client:
        answer = (await infer(client, {"inputs": [b, a]})).json()["outputs"][0]
        assert (answer["datatype"], answer["data"]) == ("BYTES", ["a", "b"])
        missing = await infer(client, {"inputs": [b, {**a, "name": "c"}]})
        assert missing.status_code == 400
        assert "features a are not among the inputs" in missing.json()["error"]
        metadata = (await client.get("/v2/models/m")).json()
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["a", "b"]


async def test_a_text_model_takes_strings_and_answers_booleans() -> None:
    texts = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["tea", "coffee"]}
    async with application(estimators.Words()) as client:
        answer = await infer(client, {"inputs": [texts]})
        receipt = await give_label(client, outputs(answer)["prediction_id"][1], True)
        metrics = (await client.get("/metrics")).text
    assert answer.json()["outputs"][0]["datatype"] == "BOOL"
    assert outputs(answer)["predict"] == [False, True]
    assert receipt == {"accepted": 1, "duplicates": 0, "refused": []}
    assert 'serin_feedback_total{actual="true",attempt="first",model="m",predicted="true"' in metrics


async def test_a_regression_answers_values_and_takes_labels() -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [[0.5], [2.5]])  # predicts [rows, 1]
    async with application(model) as client:
        answer = await infer(client, infer_body([2.0]))
        receipt = await give_label(client, outputs(answer)["prediction_id"][0], 4.25)
        no_probabilities = await infer(client, infer_body([2.0], outputs=[{"name": "predict_proba"}]))
        metadata = (await client.get("/v2/models/m")).json()
        metrics = (await client.get("/metrics")).text
    predict = answer.json()["outputs"][0]
    assert (predict["datatype"], predict["shape"], predict["data"]) == ("FP64", [1], [pytest.approx(4.5)])
    assert receipt == {"accepted": 1, "duplicates": 0, "refused": []}
    series = 'serin_feedback_error_bucket{attempt="first",model="m",revision="0123456789",le="%s",window="0"} %s'
    assert series % ("0.2", "0.0") in metrics
    assert series % ("0.5", "1.0") in metrics
    assert no_probabilities.status_code == 400
    assert no_probabilities.json() == {"error": "the model has no predict_proba"}
    assert [output["name"] for output in metadata["outputs"]] == ["predict", "prediction_id"]
    assert "serin_predictions_total{" not in metrics


async def test_several_targets_are_answered_without_prediction_ids() -> None:
    model = DecisionTreeRegressor().fit([[0.0], [1.0]], [[1.0, 2.0], [3.0, 4.0]])
    async with application(model) as client:
        answer = (await infer(client, infer_body([0.0], [1.0]))).json()["outputs"]
        asked = await infer(client, infer_body([0.0], outputs=[{"name": "prediction_id"}]))
    assert asked.status_code == 400
    assert "the model predicts several values a row" in asked.json()["error"]
    assert [output["name"] for output in answer] == ["predict"]
    assert (answer[0]["shape"], answer[0]["data"]) == ([2, 2], [1, 2, 3, 4])


async def test_predictions_that_are_not_numbers_are_a_failure_of_the_model() -> None:
    async with application(estimators.NotANumber()) as client:
        response = await infer(client, infer_body([1.0]))
    assert response.status_code == 500
    assert "not finite" in response.json()["error"]


async def test_single_precision_is_answered_in_double() -> None:
    class Single(LinearRegression):  # type: ignore[misc]
        def predict(self, matrix: Any) -> Any:
            return super().predict(matrix).astype(np.float32)

    async with application(Single().fit([[0.0], [1.0]], [0.0, 1.0])) as client:
        answer = (await infer(client, infer_body([0.5]))).json()["outputs"][0]
    assert (answer["datatype"], answer["data"]) == ("FP64", [0.5])


async def test_one_model_answers_many_requests_at_once_each_with_its_own_rows() -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    async with application(model) as client:
        answers = await asyncio.gather(*(infer(client, infer_body([float(n)])) for n in range(8)))
    assert [outputs(answer)["predict"] for answer in answers] == [[pytest.approx(float(n))] for n in range(8)]


async def test_rows_with_an_id_and_their_labels_are_told_again_at_an_age(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [0.5, 2.5])
    async with application(model) as client:
        answer = await infer(client, infer_body([2.0], [3.0]))
        await infer(client, infer_body([2.0], outputs=[{"name": "predict"}]))
        await give_label(client, outputs(answer)["prediction_id"][0], 4.25)
        later = SimpleNamespace(time=lambda: time.time() + 60)
        monkeypatch.setattr(shared, "time", later)
        metrics = (await client.get("/metrics")).text
    series = 'attempt="first",model="m",revision="0123456789"'
    assert f'serin_predictions_settled_total{{{series},window="10"}} 2.0\n' in metrics
    assert f'serin_predictions_settled_total{{{series},window="300"}} 0.0\n' in metrics
    assert f'serin_feedback_error_bucket{{{series},le="0.5",window="10"}} 1.0\n' in metrics


class Counting(BaseEstimator):  # type: ignore[misc]
    """Remembers what it was asked to predict, which it can not."""

    n_features_in_ = 3

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    def predict(self, rows: np.ndarray) -> np.ndarray:
        self.asked.append(rows)
        raise ValueError("no row of zeros was ever seen")


class Plain:
    """The same, and none of scikit-learn's kind."""

    n_features_in_ = 3
    asked: ClassVar[list[np.ndarray]] = []

    def predict(self, rows: np.ndarray) -> np.ndarray:
        self.asked.append(rows)
        return rows


def test_an_estimator_predicts_once_before_the_first_request() -> None:
    """What it imports or makes at its first call has made canaries look slow."""
    estimator = Counting()
    Model(estimator).open()
    assert [rows.tolist() for rows in estimator.asked] == [[[0, 0, 0]]]


def test_an_object_of_another_kind_is_called_by_requests_only() -> None:
    Model(Plain()).open()
    assert Plain.asked == []
