"""The short way of the commonest request: what it reads, answers and counts is what the long way does."""

import asyncio
import copy
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from tests.model_server.fuzzing import changed_bytes, changed_value
from tests.model_server.serving import serving_settings

from serin_server.monitor.keys import Keyring
from serin_server.protocol.errors import RequestError
from serin_server.protocol.plain import plain_features, read_plain
from serin_server.protocol.requests import Signature, parse_request, to_rows
from serin_server.protocol.tensors import TensorSpec
from serin_server.runtime.model import Model
from serin_server.serve import Loaded, make_app, make_server
from serin_server.web.connection import Connection

FEATURES = 2
SIGNATURE = Signature(FEATURES, None)
NOW = 1_800_000_000.25


def document(rows: Sequence[Sequence[Any]], nested: bool = False, **more: Any) -> dict[str, Any]:
    data = list(rows) if nested else [value for row in rows for value in row]
    tensor = {"name": "input-0", "shape": [len(rows), FEATURES], "datatype": "FP64", "data": data}
    return {**more, "inputs": [tensor]}


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**64 - 1), st.sampled_from([0, -0.0, 1])
)
rows = st.lists(st.lists(numbers, min_size=FEATURES, max_size=FEATURES), min_size=1, max_size=6)
ids = st.one_of(st.just({}), st.builds(lambda text: {"id": text}, st.text('abcdé \\"', max_size=5)))
documents = st.builds(lambda rows, nested, more: document(rows, nested, **more), rows, st.booleans(), ids)
# Values that stand where a number should, or are easily taken for one.
odd = st.sampled_from([True, False, None, "1", "", [], {}, [1.0], [[1.0]], 1.5, 2**70, {"a": 1}, "true", "null"])


def as_long(body: bytes) -> tuple[str | None, Any] | None:
    """What the long way reads, None when it refuses."""
    try:
        request = parse_request(body)
        return request.id, to_rows(request.inputs, SIGNATURE)
    except RequestError:
        return None


def agrees(body: bytes) -> bool:
    """Whether the body was read the short way; if so the long way must read the same."""
    found = read_plain(body, FEATURES)
    if found is None:
        return False
    expected = as_long(body)
    assert expected is not None
    assert found.id == expected[0]
    assert (
        (found.rows.dtype, found.rows.shape) == (expected[1].dtype, expected[1].shape) == (np.float64, found.rows.shape)
    )
    assert found.rows.tobytes() == expected[1].tobytes()
    return True


@given(documents)
def test_plain_requests_are_read_the_short_way(message: dict[str, Any]) -> None:
    # A quote in the id is one more than the short way expects, and not worth more.
    assert agrees(orjson.dumps(message)) == ('"' not in message.get("id", ""))


@given(documents, st.randoms(use_true_random=False))
def test_whatever_the_short_way_reads_the_long_way_reads_alike(message: dict[str, Any], chance: random.Random) -> None:
    agrees(json.dumps(changed_value(chance, message)).encode())
    agrees(changed_bytes(chance, orjson.dumps(message)))


@given(rows, st.booleans(), odd, st.data())
def test_a_value_that_is_no_number_is_never_taken_for_one(
    matrix: list[list[Any]], nested: bool, value: Any, data: st.DataObject
) -> None:
    row, column = data.draw(st.integers(0, len(matrix) - 1)), data.draw(st.integers(0, FEATURES - 1))
    matrix = copy.deepcopy(matrix)
    matrix[row][column] = value
    body = orjson.dumps(document(matrix, nested)) if value != 2**70 else b"[1180591620717411303424]"
    if type(value) is not float:
        assert read_plain(body, FEATURES) is None
    else:
        assert agrees(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP64","data":[1e999,0]}]}',  # JSON has no infinity
        b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP64","data":[NaN,0]}]}',
        b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP64","data":[]}]}',
        b'{"inputs":[{"name":"a","shape":[true,2],"datatype":"FP64","data":[1,2]}]}',
        b'{"inputs":[{"name":"a","shape":[1.0,2],"datatype":"FP64","data":[1,2]}]}',
        b'{"inputs":[{"name":"a","shape":[1,2.0],"datatype":"FP64","data":[1,2]}]}',
        b'{"inputs":[{"name":"a","shape":[0,2],"datatype":"FP64","data":[]}]}',
        b'{"inputs":[{"name":"a","shape":[2],"datatype":"FP64","data":[1,2]}]}',
        b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
        b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP64","data":{}}]}',
        b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP64","data":[[1],[2]]}]}',
        b'{"inputs":[{"name":"a","shape":[2,2],"datatype":"FP64","data":[[1,2],{}]}]}',
        b'{"inputs":[{"name":"a","shape":[1,3],"datatype":"FP64","data":[1,2,3]}]}',
        b'{"inputs":[{"name":7,"shape":[1,2],"datatype":"FP64","data":["","\\u0022"]}]}',
        b'{"inputs":[{"name":"a","data":[1],"datatype":"FP64","data":[1,2]}]}',
        b'{"inputs":"abcd","name":"shape","datatype":"FP64","data":1}',
        b'[{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP64","data":[1,2]}]}]',
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_the_long_way(body: bytes) -> None:
    assert read_plain(body, FEATURES) is None


def test_a_model_that_must_look_closer_has_no_short_way() -> None:
    assert plain_features(Signature(None, None)) is None
    assert plain_features(Signature(12, None, (TensorSpec("image", "FP32", (-1, 3, 4)),))) is None
    assert plain_features(Signature(2, ("a", "b"), by_name=True, categories={})) is None
    assert plain_features(Signature(2, ("a", "b"), by_name=True)) == 2


def test_all_that_a_model_may_ask_of_its_input_is_thought_of() -> None:
    """Whoever adds something to `to_rows` decides here whether a plain request may go past it."""
    harmless = {"features", "names", "by_name", "allows_missing", "only_numbers"}  # to finite doubles in a matrix
    assert {field.name for field in fields(Signature)} - harmless == {"inputs", "categories"}


# --- answers ---------------------------------------------------------------------------------------------------


class Moody(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts whether the first value is above 0; fails for rows below -100."""

    classes_ = np.array(["no", 'yes, é " \\'])
    n_features_in_ = FEATURES

    def predict(self, matrix: Any) -> Any:
        if (matrix < -100).any():
            raise ValueError("too low")
        return self.classes_[(matrix[:, 0] > 0).astype(int)]


class Pairs(BaseEstimator):  # type: ignore[misc]
    """Predicts two values a row."""

    n_features_in_ = FEATURES

    def predict(self, matrix: Any) -> Any:
        return matrix * 2


_MATRIX = [[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]
MODELS: dict[str, Callable[[], Any]] = {
    "integers": lambda: LogisticRegression().fit(_MATRIX, [0, 1, 12]),
    "booleans": lambda: LogisticRegression().fit(_MATRIX, [False, True, True]),
    "fractions": lambda: LogisticRegression().fit(_MATRIX, [1.0, 2.0, 2.0]),
    "texts": Moody,
    "numbers": lambda: LinearRegression().fit(_MATRIX, [0.1, 0.2, 7.3]),
    "pairs": Pairs,
}


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._heard: asyncio.Future[None] | None = None

    def heard(self) -> asyncio.Future[None]:
        """Done with the next answer."""
        self._heard = asyncio.get_running_loop().create_future()
        return self._heard

    def write(self, data: Any) -> None:
        self.written += data
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def post(body: bytes, head: str = "") -> bytes:
    return f"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Side:
    """A server with or without the short way, with the same first prediction id."""

    def __init__(self, estimator: Any, short: bool) -> None:
        loaded = Loaded(serving_settings(), Model(estimator), Keyring.of(b"a key"), 1.0)
        self.app = make_app(loaded)
        self._server = make_server(loaded, self.app)
        inference = self.app._inference
        if short:
            assert inference._plain is not None
        else:
            vars(inference)["_plain"] = None
        self.app.served.tokens._nonce = 2**64 - 20  # and soon around the end

    async def ask(self, turns: Sequence[Sequence[bytes]]) -> list[bytes]:
        """The answers on a connection for each place in a turn; all of a turn come before the model is called."""
        wires = [Wire() for _ in max(turns, key=len)]
        connections = [Connection(self.app.route, self._server) for _ in wires]
        for connection, wire in zip(connections, wires, strict=True):
            connection.connection_made(wire)
        for turn in turns:
            heard = [wire.heard() for wire, _ in zip(wires, turn, strict=False)]
            for connection, request in zip(connections, turn, strict=False):
                connection.data_received(request)
            async with asyncio.timeout(20):
                await asyncio.gather(*heard)
        return [re.sub(rb"(traceresponse: 00-\w+)-\w+", rb"\1-SPAN", wire.written) for wire in wires]

    def counters(self) -> list[str]:
        text = self.app.served.metrics.render(NOW + 100).decode()
        # Not how many calls of the model they were: both ways do not share one.
        told = r"serin_(requests|predictions|predictions_settled|refused)_total|call_rows_sum|duration_seconds_count"
        return [line for line in text.splitlines() if re.match(rf"(?!#).*({told})", line)]


async def both(model: str, turns: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The answers, which are the same on both ways, as are the counters afterwards."""
    long, short = (Side(MODELS[model](), short) for short in (False, True))
    answers = await long.ask(turns)
    assert await short.ask(turns) == answers
    assert short.counters() == long.counters()
    return answers


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids tell the second in which they were made."""
    monkeypatch.setattr(time, "time", lambda: NOW)


def asking(matrix: Any, **more: Any) -> bytes:
    return post(orjson.dumps(document(matrix, **more)))


@pytest.mark.parametrize("model", MODELS)
async def test_answers_and_counters_are_the_same_to_the_byte(model: str) -> None:
    one, many = [[0.3, -0.0]], [[float(n), n / 7] for n in range(40)]
    turns = [
        [asking(one)],
        [asking(many), asking(one, id="é\\ n"), asking([[9, 9]]), asking(many, nested=True, id="")],
        [asking(one), post(b"{"), asking([[1, 2]], parameters={})],
        [
            post(
                orjson.dumps(document(one)),
                "x-request-id: 7\r\ntraceparent: 00-" + "ab" * 16 + "-" + "cd" * 8 + "-01\r\n",
            )
        ],
        [post(orjson.dumps(document(many)), "accept-encoding: gzip\r\n")],
        [post(orjson.dumps(document(one)), "x-envoy-attempt-count: 2\r\n"), asking(one)],
        [post(orjson.dumps(document(one)), "x-envoy-expected-rq-timeout-ms: 0\r\n"), asking(one)],
        [asking([[1.5, 1], [2.5, 1]]), asking([[0, 1]])],
    ]
    answers = await both(model, turns)
    assert b"".join(answers).count(b" 200 OK") >= 11
    assert b" 504 " in b"".join(answers)


async def test_a_failing_row_fails_its_request_alone() -> None:
    answers = await both("texts", [[asking([[1, 1]]), asking([[-200, 1]]), asking([[0, 1]])]])
    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"200", b"500", b"200"]
    assert b"the model failed: ValueError: too low" in answers[1]


async def test_more_requests_than_may_wait_are_turned_away_alike() -> None:
    answers = await both("integers", [[asking([[number, 1]]) for number in range(13)]])
    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"200"] * 10 + [b"503"] * 3
    assert b"retry-after: 1" in answers[-1]


@pytest.mark.parametrize("model", ["integers", "pairs"])
async def test_a_client_that_goes_before_its_answer_is_counted_and_no_row_of_it_is(model: str) -> None:
    found = []
    for short in (False, True):
        side = Side(MODELS[model](), short)
        wires = [Wire() for _ in range(3)]
        connections = [Connection(side.app.route, side._server) for _ in wires]
        heard = [wires[0].heard(), wires[2].heard()]
        for connection, wire in zip(connections, wires, strict=True):
            connection.connection_made(wire)
            connection.data_received(asking([[1, 1], [0, 0]]))
        await asyncio.sleep(0)  # the model is called, in its thread
        connections[1].connection_lost(None)
        async with asyncio.timeout(20):
            await asyncio.gather(*heard)
        assert wires[1].written == b""
        found.append((wires[0].written, wires[2].written, side.counters()))
    assert found[0] == found[1]
    assert any('code="499"' in line for line in found[0][2])


async def test_an_internal_error_is_one_on_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for short in (False, True):
        side = Side(MODELS["integers"](), short)

        def fail(*_arguments: Any, **_more: Any) -> Any:
            raise RuntimeError("a bug")

        monkeypatch.setattr(side.app.served.tokens, "issue", fail)
        (answer,) = await side.ask([[asking([[1, 1]])]])
        assert answer.startswith(b"HTTP/1.1 500 ") and answer.endswith(b'{"error":"internal error"}')
        assert 'serin_requests_total{attempt="first",code="500",model="m",revision="0123456789"} 1.0' in side.counters()
