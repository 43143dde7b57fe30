"""The protocol over HTTP, by clients that others wrote: tritonclient, and the one generated from the protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.errors.bad_request_error import BadRequestError
from open_inference.openapi.types import InferenceRequest, RequestInput, RequestOutput, TensorData
from tests.model_server.estimators import Words
from tests.model_server.serving import Server, save, serving
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.process

FLOWERS = np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]])
KINDS = [0, 2]


@pytest.fixture
def client(iris_server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{iris_server.port}") as client:
        yield client


@pytest.fixture
def generated(iris_server: Server) -> Iterator[OpenInferenceClient]:
    with httpx.Client(timeout=20) as connection:
        yield OpenInferenceClient(base_url=iris_server.url, httpx_client=connection)


def tensor(rows: Any, datatype: str, binary: bool, name: str = "input") -> Any:
    made = triton.InferInput(name, list(rows.shape), datatype)
    made.set_data_from_numpy(rows, binary_data=binary)
    return made


def test_triton_finds_the_server_and_the_model(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("m") and client.is_model_ready("m", "v1")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("m", "v1")
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}]
    outputs = {output["name"]: (output["datatype"], output["shape"]) for output in metadata["outputs"]}
    assert outputs == {
        "predict": ("INT64", [-1]),
        "prediction_id": ("BYTES", [-1]),
        "predict_proba": ("FP64", [-1, 3]),
        "decision_function": ("FP64", [-1, -1]),
    }


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_triton_gets_the_outputs_that_it_asks_for(
    client: Any, binary: bool, binary_output: bool, compression: str | None
) -> None:
    names = ["predict_proba", "prediction_id", "decision_function", "predict"]
    found = client.infer(
        "m",
        [tensor(np.repeat(FLOWERS, 20, axis=0), "FP64", binary)],
        outputs=[triton.InferRequestedOutput(name, binary_data=binary_output) for name in names],
        request_id="mine",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    response = found.get_response()
    assert [output["name"] for output in response["outputs"]] == names
    assert all(("data" in output) != binary_output for output in response["outputs"])
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "m", "v1")
    assert found.as_numpy("predict").tolist() == np.repeat(KINDS, 20).tolist()
    assert found.as_numpy("predict_proba").argmax(axis=1).tolist() == np.repeat(KINDS, 20).tolist()
    assert found.as_numpy("decision_function").shape == (40, 3)
    assert len(set(found.as_numpy("prediction_id").tolist())) == 40


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        *((f"{sign}INT{bits}", f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)),
        ("FP16", "float16"),
        ("FP32", "float32"),
        ("FP64", "float64"),
        ("BOOL", "bool"),
    ],
)
def test_triton_sends_every_datatype(client: Any, datatype: str, dtype: str) -> None:
    """All outputs are binary when it names none."""
    rows = np.array([[5, 3, 1, 0], [7, 3, 6, 2]], dtype)
    found = [
        client.infer("m", [tensor(rows, datatype, binary)]).as_numpy("predict").tolist()
        for binary in ((True, False) if datatype != "FP16" else (True,))  # FP16 is binary only in this client
    ]
    assert all(len(predicted) == 2 for predicted in found)
    assert found[0] == found[-1]


def test_triton_sends_strings(tmp_path: Path) -> None:
    texts = np.array(["tea", "Käse", "a\0b", "coffee"], dtype=np.object_)
    with (
        serving(save(Words(), tmp_path / "model")) as server,
        triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client,
    ):
        for binary in (True, False):
            found = client.infer("m", [tensor(texts, "BYTES", binary)])
            assert found.as_numpy("predict").tolist() == [False, True, False, True]


def test_triton_reads_errors(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="the model takes 4"):
        client.infer("m", [tensor(FLOWERS[:, :3], "FP64", True)])
    with pytest.raises(InferenceServerException, match="there is no /v2/models/other"):
        client.get_model_metadata("other")


def test_the_generated_client_finds_the_server_and_the_model(generated: OpenInferenceClient) -> None:
    generated.check_server_liveness()
    generated.check_server_readiness()
    generated.check_model_readiness("m")
    generated.check_model_version_readiness("m", "v1")
    server = generated.read_server_metadata()
    assert (server.name, server.extensions) == ("serin", ["binary_tensor_data"])
    model = generated.read_model_version_metadata("m", "v1")
    assert (model.name, model.versions, model.platform) == ("m", ["v1"], "sklearn_joblib")
    assert model.properties is not None and "acceleration" in model.properties


@pytest.mark.parametrize("datatype", ["FP64", "INT64"])
def test_the_generated_client_gets_predictions(generated: OpenInferenceClient, datatype: str) -> None:
    rows = FLOWERS.round().tolist() if datatype == "INT64" else FLOWERS.tolist()
    request = InferenceRequest(
        id="mine",
        inputs=[
            RequestInput(name="x", shape=[2, 4], datatype=datatype, data=TensorData(__root__=rows), parameters=None)
        ],
        outputs=[RequestOutput(name="predict", parameters=None)],
        parameters=None,
    )
    found = generated.model_infer("m", request=request)
    assert (found.id, found.model_name, found.model_version) == ("mine", "m", "v1")
    (output,) = found.outputs
    assert (output.name, output.shape, output.datatype) == ("predict", [2], "INT64")
    assert output.data.__root__ == KINDS


def test_the_generated_client_reads_errors(generated: OpenInferenceClient) -> None:
    bad = RequestInput(name="x", shape=[1], datatype="FP64", data=TensorData(__root__=[1.0]), parameters=None)
    request = InferenceRequest(id=None, inputs=[bad], outputs=None, parameters=None)
    with pytest.raises(BadRequestError) as refusal:
        generated.model_version_infer("m", "v1", request=request)
    assert "one row is shape [1, 4]" in str(refusal.value.body["error"])
