"""The gRPC half of the protocol, asked by a client that others wrote and by plain calls."""

import asyncio
import concurrent.futures
import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tests.model_server import estimators
from tests.model_server.serving import REVISION, Server, metric, save, serving, wait_until
from tritonclient.utils import InferenceServerException

from serin_server.failures import FatalError
from serin_server.grpc_service.messages import health_pb2 as health
from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2
from serin_server.grpc_service.messages import serin_feedback_pb2 as labels
from serin_server.grpc_service.port import reserve

pytestmark = pytest.mark.process

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0]]
MAX_BODY = 100_000


@pytest.fixture(scope="module")
def server(iris: Path) -> Iterator[Server]:
    with serving(iris, "--grpc-port", "0", "--max-body-bytes", str(MAX_BODY)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{grpc_port(server)}") as client:
        yield client


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel:
        yield channel


@pytest.fixture
def web(server: Server) -> Iterator[httpx.Client]:
    with server.client() as web:
        yield web


def grpc_port(server: Server) -> int:
    return next(int(line["port"]) for line in server.log_lines() if line["message"] == "listening for gRPC")


def tensor(array: NDArray[Any], datatype: str, name: str = "x") -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def iris_rows(dtype: Any = np.float64, datatype: str = "FP64") -> triton.InferInput:
    return tensor(np.array(ROWS).astype(dtype), datatype)


def call(channel: grpc.Channel, method: str, answer: Any, request: Any, **options: Any) -> Any:
    """One plain call; raises grpc.RpcError."""
    stub = channel.unary_unary(
        f"/{method}", request_serializer=lambda message: message.SerializeToString(), response_deserializer=answer
    )
    return stub(request, timeout=options.pop("timeout", 20), **options)


def infer(channel: grpc.Channel, request: v2.ModelInferRequest, **options: Any) -> v2.ModelInferResponse:
    method = "inference.GRPCInferenceService/ModelInfer"
    answer: v2.ModelInferResponse = call(channel, method, v2.ModelInferResponse.FromString, request, **options)
    return answer


def one_row(*values: float, **fields: Any) -> v2.ModelInferRequest:
    """A request with one row, as raw bytes."""
    request = v2.ModelInferRequest(model_name="m", **fields)
    request.inputs.add(name="x", datatype="FP64", shape=[1, len(values)])
    request.raw_input_contents.append(struct.pack(f"<{len(values)}d", *values))
    return request


@contextlib.contextmanager
def refused(code: grpc.StatusCode, message: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as error:
        yield
    assert (error.value.code(), message in error.value.details()) == (code, True), error.value.details()


# --- the protocol ------------------------------------------------------------------------------------------


def test_life_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "v1")
    assert client.get_server_metadata().name == "serin"


def test_metadata_is_that_of_http(client: triton.InferenceServerClient, web: httpx.Client) -> None:
    told = client.get_model_metadata("m", as_json=True)
    expected = web.get("/v2/models/m").json()
    for tensors in (*told["inputs"], *told["outputs"]):
        tensors["shape"] = [int(size) for size in tensors["shape"]]
    assert {key: expected[key] for key in told} == told


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [(np.float64, "FP64"), (np.float32, "FP32"), (np.float16, "FP16"), (np.int64, "INT64"), (np.uint8, "UINT8")],
)
def test_numbers_of_every_kind_come_as_raw_bytes(
    client: triton.InferenceServerClient, dtype: Any, datatype: str
) -> None:
    names = ("predict", "predict_proba", "prediction_id")
    wanted = [triton.InferRequestedOutput(name) for name in names]
    answer = client.infer("m", [iris_rows(dtype, datatype)], model_version="v1", request_id="7", outputs=wanted)
    response = answer.get_response()
    assert (response.model_name, response.model_version, response.id) == ("m", "v1", "7")
    assert [output.name for output in response.outputs] == list(names)
    assert len(response.raw_output_contents) == len(names)
    predicted, probabilities = answer.as_numpy("predict"), answer.as_numpy("predict_proba")
    assert (predicted.dtype, probabilities.dtype) == (np.int64, np.float64)
    assert predicted.tolist() == probabilities.argmax(axis=1).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        *[("FP64", "fp64_contents"), ("FP32", "fp32_contents"), ("INT64", "int64_contents")],
        *[("INT8", "int_contents"), ("UINT16", "uint_contents"), ("UINT64", "uint64_contents")],
    ],
)
def test_typed_contents_are_answered_in_kind(channel: grpc.Channel, datatype: str, field: str) -> None:
    request = v2.ModelInferRequest(model_name="m")
    given = request.inputs.add(name="x", datatype=datatype, shape=[1, 4])
    values = [5, 3, 1, 0]
    getattr(given.contents, field).extend(values)
    answer = infer(channel, request)
    assert not answer.raw_output_contents
    predicted, ids = answer.outputs
    assert (predicted.datatype, list(predicted.contents.int64_contents)) == ("INT64", [0])
    assert (ids.datatype, len(ids.contents.bytes_contents)) == ("BYTES", 1)


def test_strings_and_booleans_both_ways(tmp_path: Path) -> None:
    model = save(estimators.Words(), tmp_path / "model")
    texts = np.array([b"a", "längeres Wort".encode()], dtype=np.object_)
    with serving(model, "--grpc-port", "0") as server:
        with triton.InferenceServerClient(f"127.0.0.1:{grpc_port(server)}") as client:
            raw = client.infer("m", [tensor(texts, "BYTES")])
            assert raw.as_numpy("predict").tolist() == [False, True]
        request = v2.ModelInferRequest(model_name="m")
        request.inputs.add(name="x", datatype="BYTES", shape=[2]).contents.bytes_contents.extend(texts)
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel:
            predicted, ids = infer(channel, request).outputs
            assert list(predicted.contents.bool_contents) == [False, True]
            given = [labels.Label(prediction_id=token, bool_value=True) for token in ids.contents.bytes_contents]
            assert give(channel, *given).accepted == 2


async def test_many_calls_at_once_on_one_channel(server: Server) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{grpc_port(server)}") as client:
        answers = await asyncio.gather(*(client.infer("m", [iris_rows()], request_id=str(n)) for n in range(50)))
    assert [answer.get_response().id for answer in answers] == [str(n) for n in range(50)]
    assert all(answer.as_numpy("predict").tolist() == [0, 2] for answer in answers)


def test_compressed_requests_are_read(client: triton.InferenceServerClient) -> None:
    for algorithm in ("gzip", "deflate"):
        answer = client.infer("m", [iris_rows()], compression_algorithm=algorithm)
        assert answer.as_numpy("predict").tolist() == [0, 2]


def test_the_revision_goes_with_every_answer(channel: grpc.Channel) -> None:
    stub = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    _, fine = stub.with_call(one_row(1, 2, 3, 4).SerializeToString())
    assert ("x-serin-revision", REVISION) in fine.trailing_metadata()
    with pytest.raises(grpc.RpcError) as error:
        stub(one_row(1).SerializeToString())
    assert ("x-serin-revision", REVISION) in error.value.trailing_metadata()


# --- refusals ----------------------------------------------------------------------------------------------


def test_other_models_and_versions_are_not_found(client: triton.InferenceServerClient) -> None:
    for name, version in (("n", ""), ("m", "v2")):
        for ask in (client.is_model_ready, client.get_model_metadata):
            with pytest.raises(InferenceServerException, match=r"the model is m|it is v1"):
                ask(name, version)
        with pytest.raises(InferenceServerException, match=r"StatusCode.NOT_FOUND.*") as error:
            client.infer(name, [iris_rows()], model_version=version)
        assert error.value.status() == "StatusCode.NOT_FOUND"


def spoiled(**changes: Any) -> v2.ModelInferRequest:
    """A good request with one thing changed."""
    request = one_row(1, 2, 3, 4)
    (given,) = request.inputs
    for name, value in changes.items():
        if name in ("shape", "fp64_contents"):
            target = given.shape if name == "shape" else given.contents.fp64_contents
            del target[:]
            target.extend(value)
        elif name == "raw":
            del request.raw_input_contents[:]
            request.raw_input_contents.extend(value)
        elif name == "output":
            request.outputs.add(name=value)
        else:
            setattr(given, name, value)
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (v2.ModelInferRequest(model_name="m"), "at least one tensor"),
        (spoiled(datatype="FP128"), "inputs[0] (x): datatype must be one of BOOL"),
        (spoiled(name=""), "needs a name"),
        (spoiled(shape=[1, 5]), "needs 40"),
        (spoiled(shape=[2**62, 2**62]), "needs"),
        (spoiled(shape=[]), "1 to 8 sizes"),
        (spoiled(shape=[0, 4]), "sizes above zero"),
        (spoiled(shape=[1, 2], raw=[bytes(16)]), "the model takes 4"),
        (spoiled(raw=[bytes(32)] * 2), "2 raw_input_contents for 1 inputs"),
        (spoiled(raw=[]), "needs 4"),
        (spoiled(raw=[], fp64_contents=[1, 2, 3]), "needs 4"),
        (spoiled(raw=[], fp64_contents=[1] * 4, datatype="FP32"), "FP32 has them in fp32_contents"),
        (spoiled(raw=[], fp64_contents=[1] * 4, datatype="FP16"), "use raw_input_contents"),
        (spoiled(fp64_contents=[1] * 4), "though the request has raw_input_contents"),
        (spoiled(raw=[struct.pack("<4d", 1, 2, 3, float("inf"))]), "not finite"),
        (spoiled(output="nothing"), "no output 'nothing'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_requests_that_are_wrong_are_told_why(
    channel: grpc.Channel, request_: v2.ModelInferRequest, message: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, message):
        infer(channel, request_)


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel) -> None:
    stub = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "no inference.ModelInferRequest"):
        stub(b"\xff\xff")


def test_what_is_too_long_is_refused_also_when_it_was_compressed(channel: grpc.Channel) -> None:
    rows = MAX_BODY // 32 + 1
    request = v2.ModelInferRequest(model_name="m", raw_input_contents=[bytes(rows * 32)])
    request.inputs.add(name="x", datatype="FP64", shape=[rows, 4])
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"):
            infer(channel, request, compression=compression)


def test_calls_are_counted_with_http_codes_and_attempts(channel: grpc.Channel, web: httpx.Client) -> None:
    def counted() -> list[float]:
        pairs = (("200", "first"), ("400", "first"), ("200", "retry"), ("200", "tester"))
        return [metric(web, "serin_requests_total", code=code, attempt=attempt) or 0 for code, attempt in pairs]

    before = counted()
    infer(channel, one_row(1, 2, 3, 4), metadata=[("x-envoy-attempt-count", "1")])
    infer(channel, one_row(1, 2, 3, 4), metadata=[("x-envoy-attempt-count", "2")])
    infer(channel, one_row(1, 2, 3, 4), metadata=[("x-envoy-attempt-count", "1"), ("x-serin-tester", "1")])
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "takes 4"):
        infer(channel, one_row(1))
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 1, 1]


# --- under load --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, grpc.Channel, Path]]:
    """A model that takes as long as the row says, with room for one call beside the one that is computed."""
    directory = tmp_path_factory.mktemp("slow")
    model = save(estimators.Slow(directory / "started"), directory / "model")
    with (
        serving(model, "--grpc-port", "0", "--max-in-flight", "2") as server,
        grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel,
    ):
        yield server, channel, directory / "started"


def in_flight(channel: grpc.Channel, seconds: float) -> Any:
    """A call that was begun."""
    stub = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    return stub.future(one_row(seconds).SerializeToString(), timeout=20)


def test_what_nobody_waits_for_is_not_computed(slow: tuple[Server, grpc.Channel, Path]) -> None:
    server, channel, started = slow
    started.unlink(missing_ok=True)
    with server.client() as web:

        def given_up() -> float:
            """Calls that timed out or whose clients went away: a few hundredths of a second decide which of the two."""
            counts = (metric(web, "serin_requests_total", code=code, attempt="first") for code in ("499", "504"))
            return sum(count or 0 for count in counts)

        running = in_flight(channel, 6.0)
        wait_until(started.exists)
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED, ""):
            infer(channel, one_row(10), timeout=1.0)
        wait_until(lambda: given_up() == 1)
        gone = in_flight(channel, 10)
        wait_until(lambda: metric(web, "serin_queue_length") == 1)
        gone.cancel()
        wait_until(lambda: given_up() == 2)
        assert running.result()
        infer(channel, one_row(0), timeout=5)  # the model is free: none of the two above was computed


def test_overload_is_unavailable_and_says_when_to_come_back(slow: tuple[Server, grpc.Channel, Path]) -> None:
    server, channel, started = slow
    started.unlink(missing_ok=True)
    with (
        server.client() as web,
        grpc.insecure_channel(
            f"127.0.0.1:{grpc_port(server)}", options=[("grpc.use_local_subchannel_pool", 1)]
        ) as other,
    ):
        first = in_flight(channel, 5.0)
        wait_until(started.exists)
        second = in_flight(channel, 0)
        wait_until(lambda: metric(web, "serin_queue_length") == 1)
        with pytest.raises(grpc.RpcError) as error:
            infer(other, one_row(0))
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ("grpc-retry-pushback-ms", "1000") in error.value.trailing_metadata()
        assert first.result() and second.result()


def test_what_the_model_raises_fails_its_call_alone(slow: tuple[Server, grpc.Channel, Path]) -> None:
    _, channel, _ = slow
    with refused(grpc.StatusCode.INTERNAL, "the model failed: ValueError"):
        infer(channel, one_row(-1))
    assert infer(channel, one_row(0)).outputs


# --- health and the end ------------------------------------------------------------------------------------


def check(channel: grpc.Channel, service: str = "") -> Any:
    request = health.HealthCheckRequest(service=service)
    return call(channel, "grpc.health.v1.Health/Check", health.HealthCheckResponse.FromString, request).status


def test_health(channel: grpc.Channel) -> None:
    for service in ("", "inference.GRPCInferenceService", "serin.FeedbackService"):
        assert check(channel, service) == health.HealthCheckResponse.SERVING
    with refused(grpc.StatusCode.NOT_FOUND, "no service 'other'"):
        check(channel, "other")


def test_no_call_is_lost_during_the_drain(server: Server, web: httpx.Client, iris: Path) -> None:
    """A client that calls all the time moves to the other server in time, and loses nothing."""
    before = metric(web, "serin_requests_total", code="200", attempt="first") or 0
    with serving(iris, "--grpc-port", "0", "--drain-seconds", "3") as ends:
        addresses = ",".join(f"127.0.0.1:{grpc_port(each)}" for each in (ends, server))
        with grpc.insecure_channel(f"ipv4:{addresses}") as channel:

            def calls() -> int:
                count = 0
                while ends.process.poll() is None:
                    assert infer(channel, one_row(1, 2, 3, 4)).outputs
                    count += 1
                return count

            with concurrent.futures.ThreadPoolExecutor() as pool:
                running = [pool.submit(calls) for _ in range(4)]
                with grpc.insecure_channel(f"127.0.0.1:{grpc_port(ends)}") as direct:
                    assert check(direct) == health.HealthCheckResponse.SERVING
                    ends.terminate()
                    wait_until(lambda: check(direct) == health.HealthCheckResponse.NOT_SERVING)
                assert all(result.result(30) > 0 for result in running)
            assert ends.process.wait(10) == 0
            assert (metric(web, "serin_requests_total", code="200", attempt="first") or 0) > before


def test_a_call_that_outlasts_the_drain_is_answered(tmp_path: Path) -> None:
    started = tmp_path / "started"
    model = save(estimators.Slow(started), tmp_path / "model")
    with (
        serving(model, "--grpc-port", "0", "--drain-seconds", "0.1") as server,
        grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel,
    ):
        running = in_flight(channel, 1.0)
        wait_until(started.exists)
        server.terminate()
        assert running.result()
        assert server.process.wait(10) == 0


def test_a_port_that_is_taken_is_named(server: Server) -> None:
    with pytest.raises(FatalError, match=r"for gRPC: .*--grpc-port"):
        reserve("127.0.0.1", grpc_port(server))


def test_several_processes_share_the_port_and_count_as_one(iris: Path) -> None:
    with serving(iris, "--grpc-port", "0", "--processes", "2") as server, server.client() as web:
        wait_until(lambda: sum(line["message"] == "listening for gRPC" for line in server.log_lines()) == 2)
        for _ in range(8):  # connections go to either process
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}", options=options) as channel:
                answer = infer(channel, one_row(*ROWS[0]))
                (token,) = _ids(answer)
                assert give(channel, labels.Label(prediction_id=token, int64_value=0)).accepted == 1
        assert metric(web, "serin_requests_total", code="200", attempt="first") == 8
        assert metric(web, "serin_feedback_total", actual="0", predicted="0", attempt="first") == 8


# --- labels ------------------------------------------------------------------------------------------------


def _ids(answer: v2.ModelInferResponse) -> list[str]:
    (position,) = [n for n, output in enumerate(answer.outputs) if output.name == "prediction_id"]
    raw, found = answer.raw_output_contents[position], []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return found


def give(channel: grpc.Channel, *given: labels.Label, model: str = "m") -> labels.FeedbackResponse:
    request = labels.FeedbackRequest(model_name=model, labels=given)
    method = "serin.FeedbackService/Feedback"
    answer: labels.FeedbackResponse = call(channel, method, labels.FeedbackResponse.FromString, request)
    return answer


def test_labels_are_counted_once_and_the_rest_is_told(channel: grpc.Channel, web: httpx.Client) -> None:
    (token,) = _ids(infer(channel, one_row(*ROWS[0])))
    before = metric(web, "serin_feedback_total", actual="0", predicted="0", attempt="first")
    given = [
        labels.Label(prediction_id=token, int64_value=0),
        labels.Label(prediction_id=token, int64_value=0),
        labels.Label(prediction_id=token[:-2] + "AA", int64_value=0),
    ]
    answer = give(channel, *given)
    assert (answer.accepted, answer.duplicates) == (1, 1)
    assert [(item.index, "not made by" in item.reason) for item in answer.refused] == [(2, True)]
    assert metric(web, "serin_feedback_total", actual="0", predicted="0", attempt="first") == (before or 0) + 1
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "labels[0] needs a value"):
        give(channel, labels.Label(prediction_id=token))
    with refused(grpc.StatusCode.NOT_FOUND, "no model 'n'"):
        give(channel, model="n")
