"""The way out after SIGTERM: no request is lost."""

import concurrent.futures
import http.client
import time
from pathlib import Path

import httpx
import pytest
from tests.model_server import estimators
from tests.model_server.serving import Server, infer, infer_body, outputs, save, serving, wait_until

pytestmark = pytest.mark.process

DRAIN_SECONDS = 5.0


def is_ready(server: Server) -> bool:
    with server.client() as client:
        return client.get("/v2/health/ready").status_code == 200


def test_no_request_is_lost_during_the_drain(tmp_path: Path) -> None:
    """Requests in flight at SIGTERM, on connections from before and on new ones are all answered."""
    in_flight = tmp_path / "started"
    model = save(estimators.Slow(in_flight), tmp_path / "model")
    with (
        serving(model, "--drain-seconds", str(DRAIN_SECONDS)) as server,
        server.client() as old,
        server.client() as other,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        assert is_ready(server)
        assert old.get("/v2/health/live").headers.get("connection") is None
        slow = pool.submit(infer, other, infer_body([0.5]))
        wait_until(in_flight.exists)
        terminated = time.monotonic()
        server.terminate()
        wait_until(lambda: not is_ready(server))
        server.terminate()  # a second one must not cut the drain short
        kept = infer(old, infer_body([0.05]))
        assert (kept.status_code, kept.headers["connection"]) == (200, "close")
        answered = 0
        while time.monotonic() - terminated < DRAIN_SECONDS * 0.5:
            with server.client() as new:
                response = infer(new, infer_body([0.05]))
                assert outputs(response)["predict"] == [0]
                assert response.headers["connection"] == "close"
                answered += 1
        assert answered >= 1
        assert slow.result().status_code == 200
        assert server.process.wait(10) == 0
        assert time.monotonic() - terminated >= DRAIN_SECONDS


def test_a_request_that_outlasts_the_drain_is_answered_before_the_end(tmp_path: Path) -> None:
    in_flight = tmp_path / "started"
    model = save(estimators.Slow(in_flight), tmp_path / "model")
    with (
        serving(model, "--drain-seconds", "0.1") as server,
        server.client() as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        slow = pool.submit(infer, client, infer_body([1.0]))
        wait_until(in_flight.exists)
        server.terminate()
        assert slow.result().status_code == 200
        assert server.process.wait(10) == 0


def test_health_during_the_drain_and_the_end_of_idle_connections(iris: Path) -> None:
    with serving(iris, "--drain-seconds", "5") as server:
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        idle.request("GET", "/v2/health/live")
        assert idle.getresponse().read() == b'{"live":true}'
        server.terminate()
        wait_until(lambda: not is_ready(server))
        for path, status in (("/v2/models/m/ready", 503), ("/v2/health/live", 200), ("/metrics", 200)):
            with server.client() as client:
                assert client.get(path).status_code == status
        assert server.process.wait(10) == 0
        assert idle.sock is not None
        assert idle.sock.recv(1) == b""
        idle.close()
        with pytest.raises(httpx.ConnectError), server.client() as client:
            client.get("/v2/health/live")
