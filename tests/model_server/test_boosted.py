"""XGBoost and LightGBM models in the real server, as their image serves them: forked, by both protocols."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from tests.model_server.serving import metric, outputs, save, serving
from tests.model_server.test_conformance_grpc import grpc_port, infer

from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2

pytestmark = pytest.mark.process

TOWNS = ["Bonn", "Kiel", "Ulm"]
PEOPLE = pd.DataFrame({"age": np.linspace(-1, 1, 300), "town": pd.Categorical(np.resize(TOWNS, 300))})
IN_ULM = (PEOPLE["town"] == "Ulm").astype(int)


def xgb() -> Any:
    return xgboost.XGBClassifier(n_estimators=5, enable_categorical=True, n_jobs=1).fit(PEOPLE, IN_ULM)


def lgbm() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(PEOPLE, IN_ULM)


def as_json(*towns: str) -> dict[str, Any]:
    shape = [len(towns)]
    return {
        "inputs": [
            {"name": "age", "shape": shape, "datatype": "FP64", "data": [0.0] * len(towns)},
            {"name": "town", "shape": shape, "datatype": "BYTES", "data": list(towns)},
        ]
    }


def as_message(town: bytes) -> v2.ModelInferRequest:
    request = v2.ModelInferRequest(model_name="m")
    request.inputs.add(name="age", datatype="FP64", shape=[1])
    request.inputs.add(name="town", datatype="BYTES", shape=[1])
    request.raw_input_contents.extend([struct.pack("<d", 0.0), struct.pack("<I", len(town)) + town])
    return request


@pytest.mark.parametrize("make", [xgb, lgbm])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_boosted_model_is_served_and_clients_mistakes_are_not_its_failures(
    tmp_path: Path, make: Callable[[], Any], processes: int
) -> None:
    model = save(make(), tmp_path / "model")
    arguments = ("--grpc-port", "0", "--processes", str(processes))
    with serving(model, *arguments) as server, server.client() as client:
        answer = client.post("/v2/models/m/infer", json=as_json("Ulm", "Kiel", "Bonn"))
        assert outputs(answer)["predict"] == [1, 0, 0]
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel:
            raw = infer(channel, as_message(b"Ulm")).raw_output_contents[0]
        assert struct.unpack("<q", raw.ljust(8, b"\0")) == (1,)
        unknown = client.post("/v2/models/m/infer", json=as_json("Rom"))
        assert unknown.status_code == (400 if make is xgb else 200)
        wrong = client.post("/v2/models/m/infer", json={"inputs": as_json("Ulm")["inputs"][:1]})
        assert wrong.status_code == 400
        assert not metric(client, "serin_requests_total", code="500", attempt="first")
