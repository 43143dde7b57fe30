"""Two servers that answer copies of the same requests, over HTTP and gRPC, and what is carried between them."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from tests.model_server import test_conformance_grpc as over_grpc
from tests.model_server.serving import Server, infer, infer_body, metric, outputs, save, serving, wait_until

from serin_server.serving.copies import shared_by_grpc, shared_by_http

pytestmark = pytest.mark.process

STABLE, CANARY = "aaaaaaaaaa", "bbbbbbbbbb"
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 4.5, 1.5], [6.9, 3.1, 5.8, 2.1]]  # of classes 0, 1 and 2
NEW, TAKE, FEEDBACK = "/v2/models/m/answers/new", "/v2/models/m/answers", "/v2/models/m/feedback"


@pytest.fixture(scope="module", params=["1", "2"])
def stable(iris: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(iris, "--revision", STABLE, "--grpc-port", "0", "--processes", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def canary(stable: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answers class 1 to everything, from two processes if stable has two."""
    model = DummyClassifier(strategy="constant", constant=1).fit(np.zeros((3, 4)), [0, 1, 2])
    path = save(model, tmp_path_factory.mktemp("constant") / "model")
    workers = "2" if len(workers_of(stable)) > 1 else "1"
    with serving(path, "--revision", CANARY, "--grpc-port", "0", "--processes", workers) as server:
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


def call(server: Server, row: list[float], **metadata: str) -> str:
    """The same as a call over gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{over_grpc.grpc_port(server)}") as channel:
        answer = over_grpc.infer(channel, over_grpc.one_row(*row), metadata=list(metadata.items()))
    texts = {output.name: raw for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    return str(texts["prediction_id"][4:], "ascii")  # after the length of the text


def carried(stable: Server, canary: Server, place: str = "", window: int = 0) -> str:
    """As the operator does it, with a label window."""
    with stable.client() as teller, canary.client() as hearer:
        batch = teller.post(NEW, content=place.encode())
        assert batch.status_code == 200
        first, _, sealed = batch.content.partition(b"\n")
        taken = hearer.post(TAKE, content=b"%d\n%s" % (window, sealed))
        assert taken.status_code == 200, taken.text
    return first.partition(b" ")[0].decode()


def counted(server: Server, name: str, **labels: str) -> float:
    with server.client() as client:
        return metric(client, name, stable=STABLE, **labels) or 0.0


def pairs(server: Server) -> tuple[float, float]:
    """Of the pairs, those that differ and those that do not."""
    return tuple(counted(server, "serin_pairs_total", answers=each) for each in ("different", "same"))  # type: ignore[return-value]


def counts(canary: Server) -> Counter[str]:
    """What it has counted of pairs and of their labels."""
    labels, own = "serin_paired_labels_total", {"revision": CANARY, "attempt": "first", "predicted": "1"}
    different, same = pairs(canary)
    with canary.client() as client:
        found = {
            "the canary alone is wrong": metric(client, labels, answers="different", wrong="canary"),
            "neither is wrong": metric(client, labels, answers="same", wrong="none"),
            "both are wrong": metric(client, labels, answers="different", wrong="both"),
            "moved to class 1": metric(client, "serin_pairs_moved_total", by="canary", predicted="1"),
            "the canary's label 0": metric(client, "serin_feedback_total", actual="0", **own),
            "the canary's label 1": metric(client, "serin_feedback_total", actual="1", **own),
        }
    told = {"pairs that differ": different, "pairs that agree": same, **found}
    return Counter({name: int(value or 0) for name, value in told.items()})


@pytest.mark.parametrize("one", [ask, call])
def test_pairs_and_their_labels_are_counted_by_the_canary(
    stable: Server, canary: Server, one: Callable[..., str]
) -> None:
    place = carried(stable, canary)
    before = counts(canary)
    ids = []
    for number, row in enumerate(ROWS):
        copied = marked(f"{one.__name__} {number}")
        ids.append(one(stable, row, **copied))
        one(canary, row, **copied)
        one(stable, row)  # not copied
        one(stable, row, **marked(f"retry {number}", **{"x-envoy-attempt-count": "2"}))
    with stable.client() as client:
        labels = [{"prediction_id": ids[number], "label": label} for number, label in enumerate([0, 1, 0])]
        assert client.post(FEEDBACK, json=labels).json()["accepted"] == 3
    expected = {
        "pairs that differ": 2,
        "pairs that agree": 1,
        "the canary alone is wrong": 1,  # it was class 0
        "neither is wrong": 1,
        "both are wrong": 1,  # neither 1 nor 2
        "moved to class 1": 2,
        "the canary's label 0": 2,
        "the canary's label 1": 1,
    }

    def arrived() -> bool:
        nonlocal place
        place = carried(stable, canary, place)
        return counts(canary) - before == expected

    wait_until(arrived)
    carried(stable, canary)  # all of it once more
    assert counts(canary) - before == expected


def test_a_call_and_a_request_are_never_copies_of_each_other(stable: Server, canary: Server) -> None:
    before = counts(canary)
    ask(stable, ROWS[1], **marked("of both"))
    call(canary, ROWS[1], **marked("of both"))
    for server in (stable, canary):
        call(server, ROWS[1], **marked("of one"))

    def arrived() -> bool:
        carried(stable, canary)
        return (counts(canary) - before)["pairs that agree"] > 0

    wait_until(arrived)
    assert counts(canary) - before == {"pairs that agree": 1}


@pytest.mark.parametrize("content", [b"", b'{"inputs": []}', b"\x0a\x01m"])
def test_what_copies_share_is_another_for_another_protocol_id_or_content(content: bytes) -> None:
    shared = [way(name, more) for way in (shared_by_http, shared_by_grpc) for name in "ab" for more in (content, b"x")]
    assert len(set(shared)) == len(shared)
    assert shared_by_grpc("a", content) == shared_by_grpc("a", content)
    assert shared_by_http(None, content) is shared_by_grpc(None, content) is None


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


def test_pairs_are_counted_at_the_age_of_the_label_window(stable: Server, canary: Server) -> None:
    place = carried(stable, canary, window=10)  # pairs of before are not among them
    ids = []
    for number, row in enumerate(ROWS):
        copied = marked(f"aged {number}")
        ids.append(ask(stable, row, **copied))
        ask(canary, row, **copied)
    with stable.client() as client:
        client.post(FEEDBACK, json=[{"prediction_id": ids[0], "label": 0}])

    def found() -> Counter[str]:
        own = {"revision": CANARY, "attempt": "first", "predicted": "1", "window": "10"}
        labels = "serin_paired_labels_settled_total"
        with canary.client() as client:
            told = {
                "different": metric(client, "serin_pairs_settled_total", answers="different", window="10"),
                "same": metric(client, "serin_pairs_settled_total", answers="same", window="10"),
                "canary wrong": metric(client, labels, answers="different", wrong="canary", window="10"),
                "the canary's label 0": metric(client, "serin_feedback_settled_total", actual="0", **own),
            }
        return Counter({name: int(value or 0) for name, value in told.items()})

    def aged() -> bool:
        nonlocal place
        place = carried(stable, canary, place, window=10)
        return found().total() > 0

    before = found()
    assert before.total() == 0
    wait_until(aged, seconds=40)
    wait_until(lambda: aged() and found()["different"] + found()["same"] == 3)
    assert found() == {"different": 2, "same": 1, "canary wrong": 1, "the canary's label 0": 1}
