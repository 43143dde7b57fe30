"""Two servers that answer copies of the same requests, and what is carried between them, over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from tests.model_server.serving import Server, infer, infer_body, metric, outputs, save, serving, wait_until

pytestmark = pytest.mark.process

STABLE, CANARY = "aaaaaaaaaa", "bbbbbbbbbb"
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 4.5, 1.5], [6.9, 3.1, 5.8, 2.1]]  # of classes 0, 1 and 2
NEW, TAKE, FEEDBACK = "/v2/models/m/answers/new", "/v2/models/m/answers", "/v2/models/m/feedback"


@pytest.fixture(scope="module", params=["1", "2"])
def stable(iris: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(iris, "--revision", STABLE, "--processes", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def canary(stable: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answers class 1 to everything, from two processes if stable has two."""
    model = DummyClassifier(strategy="constant", constant=1).fit(np.zeros((3, 4)), [0, 1, 2])
    path = save(model, tmp_path_factory.mktemp("constant") / "model")
    workers = "2" if len(workers_of(stable)) > 1 else "1"
    with serving(path, "--revision", CANARY, "--processes", workers) as server:
        yield server


def workers_of(server: Server) -> list[str]:
    return Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()


def marked(request_id: str, **more: str) -> dict[str, str]:
    return {"x-serin-shadow": "1", "x-request-id": request_id, **more}


def ask(server: Server, row: list[float], **headers: str) -> str:
    """One request on a connection of its own, so that processes take turns; its prediction id."""
    with server.client() as client:
        answer = outputs(infer(client, infer_body(row), **headers))
    return str(answer["prediction_id"][0])


def carried(stable: Server, canary: Server, place: str = "") -> str:
    with stable.client() as teller, canary.client() as hearer:
        batch = teller.post(NEW, content=place.encode())
        assert batch.status_code == 200
        taken = hearer.post(TAKE, content=batch.content)
        assert taken.status_code == 200, taken.text
    return batch.content.partition(b" ")[0].decode()


def counted(server: Server, name: str, **labels: str) -> float:
    with server.client() as client:
        return metric(client, name, stable=STABLE, **labels) or 0.0


def pairs(server: Server) -> tuple[float, float]:
    """Of the pairs, those that differ and those that do not."""
    return tuple(counted(server, "serin_pairs_total", answers=each) for each in ("different", "same"))  # type: ignore[return-value]


def test_pairs_and_their_labels_are_counted_by_the_canary(stable: Server, canary: Server) -> None:
    place = carried(stable, canary)
    different, same = pairs(canary)
    ids = []
    for number, row in enumerate(ROWS):
        ids.append(ask(stable, row, **marked(f"first {number}")))
        ask(canary, row, **marked(f"first {number}"))
        ask(stable, row)  # not copied
        ask(stable, row, **marked(f"retry {number}", **{"x-envoy-attempt-count": "2"}))
    with stable.client() as client:
        labels = [{"prediction_id": ids[number], "label": label} for number, label in enumerate([0, 1, 0])]
        assert client.post(FEEDBACK, json=labels).json()["accepted"] == 3

    def arrived() -> bool:
        nonlocal place
        place = carried(stable, canary, place)
        return pairs(canary) == (different + 2, same + 1)

    wait_until(arrived)
    place = carried(stable, canary, place)
    assert counted(canary, "serin_paired_labels_total", answers="different", wrong="canary") == 1  # it was class 0
    assert counted(canary, "serin_paired_labels_total", answers="same", wrong="none") == 1
    assert counted(canary, "serin_paired_labels_total", answers="different", wrong="both") == 1  # neither 1 nor 2
    assert counted(canary, "serin_pairs_moved_total", by="canary", predicted="1") == 2
    with canary.client() as client:
        own = {"revision": CANARY, "attempt": "first"}
        assert metric(client, "serin_feedback_total", actual="0", predicted="1", **own) == 2
        assert metric(client, "serin_feedback_total", actual="1", predicted="1", **own) == 1
    before = (pairs(canary), counted(canary, "serin_paired_labels_total", answers="same", wrong="none"))
    carried(stable, canary)  # all of it once more
    after = (pairs(canary), counted(canary, "serin_paired_labels_total", answers="same", wrong="none"))
    assert after == before


def test_what_is_told_holds_no_inputs(stable: Server, canary: Server) -> None:
    ask(stable, [4.321, 4.321, 4.321, 4.321], **marked("a secret name"))
    with stable.client() as client:
        told: list[bytes] = []

        def there() -> bool:
            told.append(client.post(NEW).content)
            return b"[" in told[-1]

        wait_until(there)
    assert b"4.321" not in told[-1] and b"secret" not in told[-1]


@pytest.mark.parametrize("path", ["/answers", "/answers/new"])
def test_answers_are_there_under_one_spelling_only(stable: Server, path: str) -> None:
    with stable.client() as client:
        for other in (path.replace("a", "%61", 1), f"{path}?x=1", f"{path}/"):
            raw = httpx.URL(f"{stable.url}/v2/models/m").copy_with(raw_path=f"/v2/models/m{other}".encode())
            assert client.post(raw, content=b"").status_code == 404, other
        assert client.get(f"/v2/models/m{path}").status_code == 405


@pytest.mark.parametrize("content", [b"", b"nonsense", b"p 0\n" + b"0" * 64 + b"\n[]"])
def test_nobody_else_can_make_up_pairs(canary: Server, content: bytes) -> None:
    before = pairs(canary)
    with canary.client() as client:
        answer = client.post(TAKE, content=content)
    assert answer.status_code == 403
    assert "not told by a server of this model" in answer.json()["error"]
    assert pairs(canary) == before


def test_answers_without_ids_are_pairs_without_labels(stable: Server, canary: Server) -> None:
    before = pairs(canary)
    body: dict[str, Any] = infer_body(ROWS[1], outputs=[{"name": "predict"}])
    for server in (canary, stable):
        with server.client() as client:
            assert list(outputs(infer(client, body, **marked("no id")))) == ["predict"]

    def arrived() -> bool:
        carried(stable, canary)
        return pairs(canary) == (before[0], before[1] + 1)

    wait_until(arrived)


def test_one_id_for_different_requests_pairs_none_of_them(stable: Server, canary: Server) -> None:
    """Not every router makes the id itself: a client may choose it."""
    different, same = pairs(canary)
    ask(stable, ROWS[0], **marked("chosen"))
    ask(canary, ROWS[1], **marked("chosen"))
    for server in (stable, canary):
        ask(server, ROWS[1], **marked("another"))

    def arrived() -> bool:
        carried(stable, canary)
        return pairs(canary)[1] == same + 1

    wait_until(arrived)
    assert pairs(canary) == (different, same + 1)
