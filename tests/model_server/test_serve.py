"""The serving process, driven over HTTP."""

import concurrent.futures
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_iris
from tests.model_server import estimators
from tests.model_server.serving import (
    REVISION,
    Server,
    infer,
    infer_body,
    metric,
    outputs,
    save,
    serving,
    wait_until,
)

from serin_server.runtime.loading import load

pytestmark = pytest.mark.process

SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]


def requests_counted(client: httpx.Client, code: int, attempt: str = "first") -> float:
    return metric(client, "serin_requests_total", code=str(code), attempt=attempt) or 0.0


def test_a_server_starts_with_its_series_at_zero(iris: Path) -> None:
    with serving(iris) as server, server.client() as client:
        labels = {"model": "m", "revision": REVISION, "attempt": "first"}
        assert metric(client, "serin_requests_total", code="200", **labels) == 0
        assert metric(client, "serin_request_duration_seconds_count", **labels) == 0
        assert metric(client, "serin_request_duration_seconds_bucket", le="0.0025", **labels) == 0
        assert metric(client, "serin_predictions_total", predicted="2", **labels) == 0
        assert metric(client, "serin_feedback_total", actual="1", predicted="1", **labels) == 0
        assert metric(client, "serin_feedback_settled_total", actual="1", predicted="1", window="60", **labels) == 0
        assert metric(client, "serin_predictions_settled_total", window="604800", **labels) == 0
        assert (metric(client, "serin_model_load_seconds", model="m", revision=REVISION) or 0) > 0
        started = client.get("/metrics").text.partition("\nprocess_start_time_seconds ")[2].split()[0]
        assert time.time() - 60 < float(started) < time.time()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/v1/ready", {"name": "m", "ready": True}),
    ],
)
def test_health(client: httpx.Client, path: str, answer: dict[str, Any]) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (200, answer)


def test_metadata(client: httpx.Client) -> None:
    assert client.get("/v2").json()["name"] == "serin"
    model = client.get("/v2/models/m").json()
    assert model == client.get("/v2/models/m/versions/v1").json()
    assert (model["name"], model["versions"]) == ("m", ["v1"])
    assert model["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}]
    assert {output["name"]: output["datatype"] for output in model["outputs"]} == {
        "predict": "INT64",
        "prediction_id": "BYTES",
        "predict_proba": "FP64",
        "decision_function": "FP64",
    }
    assert model["platform"] == "sklearn_joblib"
    assert model["properties"]["model"] == "LogisticRegression"
    assert "accelerated" in model["properties"]["acceleration"]


def test_a_prediction(client: httpx.Client) -> None:
    response = infer(client, infer_body(SETOSA, VIRGINICA, id="request 1"))
    message = response.json()
    assert response.headers["x-serin-revision"] == REVISION
    assert (message["model_name"], message["model_version"], message["id"]) == ("m", "v1", "request 1")
    predict, ids = message["outputs"]
    assert predict == {"name": "predict", "shape": [2], "datatype": "INT64", "data": [0, 2]}
    assert (ids["name"], ids["shape"], ids["datatype"]) == ("prediction_id", [2], "BYTES")
    assert len(set(ids["data"])) == 2


def test_no_id_is_answered_when_none_was_sent(client: httpx.Client) -> None:
    assert "id" not in infer(client, infer_body(SETOSA)).json()


def test_the_versioned_path_is_the_same_model(client: httpx.Client) -> None:
    response = client.post("/v2/models/m/versions/v1/infer", json=infer_body(SETOSA))
    assert outputs(response)["predict"] == [0]


def test_only_the_outputs_asked_for_are_answered_in_their_order(client: httpx.Client) -> None:
    names = ["predict_proba", "predict"]
    response = infer(client, infer_body(SETOSA, VIRGINICA, outputs=[{"name": name} for name in names]))
    assert list(outputs(response)) == names
    probabilities = response.json()["outputs"][0]
    assert (probabilities["shape"], probabilities["datatype"]) == ([2, 3], "FP64")
    assert np.reshape(probabilities["data"], (2, 3)).sum(axis=1) == pytest.approx([1, 1])


def test_predictions_equal_the_models_own(iris: Path, client: httpx.Client) -> None:
    features, _ = load_iris(return_X_y=True)
    wanted = [{"name": "predict"}, {"name": "predict_proba"}]
    answer = outputs(infer(client, infer_body(*features.tolist(), outputs=wanted)))
    model = load(iris.read_bytes())
    assert answer["predict"] == model.predict(features).tolist()
    # Computed by ONNX, which rounds the last bit otherwise.
    found = np.reshape(answer["predict_proba"], (-1, 3))
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ("{", 400, "not valid JSON"),
        (infer_body([1, 2, 3]), 400, "has 3 features, the model takes 4"),
        (infer_body(SETOSA, outputs=[{"name": "shap"}]), 400, "there is no output 'shap'"),
        (infer_body(["a", "b", "c", "d"]), 400, "must be numbers"),
        ("x" * 100_001, 413, "the limit is 100000"),
    ],
)
def test_a_bad_request_is_refused_and_counted(
    client: httpx.Client, body: str | dict[str, Any], status: int, text: str
) -> None:
    before = requests_counted(client, status)
    content = body if isinstance(body, str) else json.dumps(body)
    response = client.post("/v2/models/m/infer", content=content)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert text in response.json()["error"]
    assert requests_counted(client, status) == before + 1


def test_a_body_of_unknown_length_is_bounded_too(client: httpx.Client) -> None:
    response = client.post("/v2/models/m/infer", content=iter([b"x" * 60_000] * 50))
    assert response.status_code == 413


def test_bodies_in_other_forms_are_refused_by_name(client: httpx.Client) -> None:
    response = infer(client, infer_body(SETOSA), **{"Content-Encoding": "br"})
    assert response.status_code == 415
    assert "content-encoding" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/m/versions/v2/infer", 404),
        ("GET", "/v2/models/m/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/models/m/feedback", 405),
    ],
)
def test_other_paths_and_methods(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert path in response.json()["error"]


def test_requests_are_counted_by_attempt(client: httpx.Client) -> None:
    def counted() -> list[float]:
        return [requests_counted(client, 200, attempt) for attempt in ("first", "retry", "tester")]

    before = counted()
    for count in ("1", "2", "3"):
        infer(client, infer_body(SETOSA), **{"x-envoy-attempt-count": count})
    for count in ("1", "2", "2", "2"):
        infer(client, infer_body(SETOSA), **{"x-envoy-attempt-count": count, "x-serin-tester": "1"})
    assert [new - old for new, old in zip(counted(), before, strict=True)] == [1, 2, 4]


def test_feedback_comes_back_for_the_prediction(client: httpx.Client) -> None:
    cell = {"revision": REVISION, "actual": "1", "predicted": "2"}
    assert metric(client, "serin_feedback_total", attempt="first", **cell) is None
    first = outputs(infer(client, infer_body(VIRGINICA)))["prediction_id"][0]
    retried = infer(client, infer_body(VIRGINICA), **{"x-envoy-attempt-count": "2"})
    labels = [(first, 1.0), (first, 1), ("forged", 1), (outputs(retried)["prediction_id"][0], "1")]
    body = [{"prediction_id": token, "label": label} for token, label in labels]
    response = client.post("/v2/models/m/feedback", json=body)
    assert response.status_code == 200
    receipt = response.json()
    assert (receipt["accepted"], receipt["duplicates"]) == (2, 1)
    assert [refused["index"] for refused in receipt["refused"]] == [2]
    assert metric(client, "serin_feedback_total", attempt="first", **cell) == 1
    assert metric(client, "serin_feedback_total", attempt="retry", **cell) == 1
    assert metric(client, "serin_feedback_refused_total", model="m", reason="damaged") == 1
    assert metric(client, "serin_feedback_delay_seconds_count", revision=REVISION) == 2


def test_malformed_feedback_is_refused_as_a_whole(client: httpx.Client) -> None:
    response = client.post("/v2/models/m/feedback", json={"prediction_id": "a", "label": 1})
    assert response.status_code == 400
    assert "must be an array" in response.json()["error"]


def test_a_failing_model_is_a_500_and_the_server_goes_on(tmp_path: Path) -> None:
    with serving(save(estimators.Moody(), tmp_path / "model")) as server, server.client() as client:
        for mood, text in ((1, "KeyError"), (2, "SystemExit"), (3, "shape [2] for 1 rows")):
            response = infer(client, infer_body([mood]), **{"x-request-id": f"request-{mood}"})
            assert response.status_code == 500
            assert text in response.json()["error"]
            assert response.headers["x-serin-revision"] == REVISION
        assert requests_counted(client, 500) == 3
        assert outputs(infer(client, infer_body([0])))["predict"] == ["fine"]

        def failed() -> list[dict[str, Any]]:
            return [line for line in server.log_lines() if line["message"] == "the model failed"]

        wait_until(lambda: len(failed()) == 3)  # a thread of its own writes the log
        assert [line["request_id"] for line in failed()] == ["request-1", "request-2", "request-3"]
        assert "estimators.py" in failed()[0]["exception"]


def test_health_answers_while_the_model_computes_and_the_queue_is_bounded(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with (
        serving(save(estimators.Slow(started), tmp_path / "model"), "--max-in-flight", "1") as server,
        server.client() as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        slow = pool.submit(infer, client, infer_body([5.0]))
        wait_until(started.exists)
        refused = infer(client, infer_body([0]))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 200
        assert infer(client, infer_body([0])).status_code == 200
        assert requests_counted(client, 503) == 1


def test_a_client_that_goes_away_is_a_499_and_what_waits_for_it_is_dropped(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with (
        serving(save(estimators.Slow(started), tmp_path / "model")) as server,
        server.client() as client,
    ):
        running = _send_and_leave_open(server, 5)
        wait_until(started.exists)
        waiting = _send_and_leave_open(server, 60)
        assert client.get("/v2/health/live").status_code == 200
        waiting.close()
        running.close()
        wait_until(lambda: requests_counted(client, 499) == 2)
        assert infer(client, infer_body([0])).status_code == 200


def _send_and_leave_open(server: Server, seconds: float) -> socket.socket:
    body = b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP64","data":[%g]}]}' % seconds
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n"
    connection.sendall(head % len(body) + body)
    return connection


def test_a_hundred_rows_stay_fast(iris_server: Server, client: httpx.Client) -> None:
    """Far from a benchmark: a loop in Python over each byte or a scan for each row would not pass."""
    body = infer_body(*[SETOSA] * 100)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        assert len(outputs(infer(client, body))["prediction_id"]) == 100
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.02
