"""What models take and answer beyond one matrix: columns by name, missing values, many dimensions, named outputs."""

import asyncio
import functools
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import httpx
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from jsonschema import Draft202012Validator
from onnx import TensorProto, helper
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from tests.model_server.serving import outputs
from tests.model_server.test_models import application, infer

from serin_server.failures import FatalError, Reason
from serin_server.runtime.acceleration import Accelerate, accelerate
from serin_server.runtime.formats import Format, load_format
from serin_server.runtime.inputs import allows_missing, signature_of

PEOPLE = pd.DataFrame(
    {
        "age": [20, 30, 40, 50, 60, 70],
        "income": [1.5, 2.5, np.nan, 4.5, 5.5, 6.5],
        "town": ["Bonn", "Ulm", "Bonn", "Ulm", "Bonn", "Ulm"],
    }
)
BUYS = ["no", "no", "no", "yes", "yes", "yes"]


def mixed(*last: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer((numbers, ["age", "income"]), (OneHotEncoder(handle_unknown="ignore"), ["town"]))
    return make_pipeline(columns, *last).fit(PEOPLE, BUYS)


def column(name: str, datatype: str, *data: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": list(data)}


async def infer_binary(client: httpx.AsyncClient, rows: Any) -> httpx.Response:
    data = rows.tobytes()
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    return await client.post("/v2/models/m/infer", content=head + data, headers=headers)


AGE, INCOME = column("age", "INT64", 25, 65), column("income", "FP64", 1.5, None)
TOWN = column("town", "BYTES", "Ulm", "Bonn")


async def test_columns_of_several_datatypes_by_name() -> None:
    async with application(mixed(LogisticRegression())) as client:
        answer = await infer(client, {"inputs": [TOWN, {**AGE, "shape": [2, 1]}, INCOME]})
        metadata = (await client.get("/v2/models/m")).json()
    assert outputs(answer)["predict"] == ["no", "yes"]
    assert metadata["inputs"] == [
        {"name": "age", "datatype": "FP64", "shape": [-1]},
        {"name": "income", "datatype": "FP64", "shape": [-1]},
        {"name": "town", "datatype": "BYTES", "shape": [-1]},
    ]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([AGE, TOWN], "the model's features income are not among the inputs"),
        ([AGE, INCOME, TOWN, column("size", "FP64", 1, 2)], "the inputs size are not features of the model"),
        ([AGE, INCOME, TOWN, TOWN], "town is given twice"),
        ([AGE, INCOME, column("town", "BYTES", "Ulm")], "town has 1 rows, age has 2"),
        ([AGE, INCOME, {**TOWN, "shape": [1, 2]}], "town has 1 rows"),
        ([{**AGE, "shape": [1, 2]}, INCOME, TOWN], "income has 2 rows, age has 1"),
        ([column("x", "FP64", 1, 2)], "the model takes 3 features"),
    ],
)
async def test_columns_that_do_not_fit_are_refused(inputs: list[Any], message: str) -> None:
    async with application(mixed(LogisticRegression())) as client:
        answer = await infer(client, {"inputs": inputs})
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LogisticRegression(), False),
        (StandardScaler(), True),
        (RandomForestClassifier(), True),
        (make_pipeline(StandardScaler(), LogisticRegression()), False),
        (make_pipeline(SimpleImputer(), LogisticRegression()), True),
        (make_pipeline(StandardScaler(), "passthrough", RandomForestClassifier()), True),
        (mixed(LogisticRegression()), True),
        (xgboost.XGBClassifier(), True),
        (lightgbm.LGBMClassifier(), True),
        (object(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_allows_missing_values(model: Any, expected: bool) -> None:
    assert allows_missing(model) is expected


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression().fit([[0.0], [1.0]], [0, 1]),
        make_pipeline("passthrough", StandardScaler(), SVC()).fit([[0.0], [1.0]], [0, 1]),
        accelerate(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), Accelerate.AUTO).estimator,
    ],
    ids=["estimator", "pipeline", "accelerated"],
)
async def test_strings_for_a_model_of_numbers_are_the_clients_mistake(model: Any) -> None:
    async with application(model) as client:
        answer = await infer(client, {"inputs": [column("x", "BYTES", "1")]})
    assert (answer.status_code, answer.json()["error"]) == (400, "the input holds strings, the model takes numbers")


async def test_missing_values_reach_an_accelerated_model_that_allows_them() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 3))
    labels = np.where(np.isnan(rows[:, 0]) | (rows[:, 0] > 0), "a", "b")
    rows[::7, 0] = np.nan
    forest = RandomForestClassifier(20, random_state=1).fit(rows, labels)
    made = accelerate(forest, Accelerate.AUTO)
    missing = {"name": "x", "shape": [2, 3], "datatype": "FP64", "data": [None, 1, 1, 1, 1, 1]}
    async with application(made.estimator) as client:
        answer = await infer(client, {"inputs": [missing]})
        infinite = await infer_binary(client, np.array([[np.inf, 1, 1]]))
    assert outputs(answer)["predict"] == forest.predict([[np.nan, 1, 1], [1, 1, 1]]).tolist()
    assert infinite.status_code == 400
    assert "not finite" in infinite.json()["error"]


async def test_a_transformer_is_served_by_transform() -> None:
    scaler = StandardScaler().fit([[0.0, 1.0], [2.0, 5.0]])
    async with application(scaler) as client:
        answer = (await infer(client, {"inputs": [column("x", "FP64", 2, None) | {"shape": [1, 2]}]})).json()
        refused = await infer(
            client, {"inputs": [column("x", "FP64", 2, 5) | {"shape": [1, 2]}], "outputs": [{"name": "predict"}]}
        )
        metadata = (await client.get("/v2/models/m")).json()
    (output,) = answer["outputs"]
    assert (output["name"], output["shape"], output["data"]) == ("transform", [1, 2], [1.0, None])
    assert refused.json() == {"error": "the model has no predict"}
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["transform"]


async def test_several_outputs_come_from_one_call_of_each_method() -> None:
    calls: list[str] = []

    class Counting(KMeans):  # type: ignore[misc]
        def predict(self, rows: Any) -> Any:
            calls.append("predict")
            return super().predict(rows)

        def transform(self, rows: Any) -> Any:
            calls.append("transform")
            return super().transform(rows)

    model = Counting(2, n_init=1, random_state=0).fit([[0.0], [10.0]])
    names = ["transform", "predict", "transform", "prediction_id"]
    body = {"inputs": [column("x", "FP64", 1, 9)], "outputs": [{"name": name} for name in names]}
    async with application(model) as client:
        answer = (await infer(client, body)).json()
    assert [output["name"] for output in answer["outputs"]] == ["transform", "predict", "prediction_id"]
    assert sorted(calls) == ["predict", "transform"]


async def test_a_decision_function_is_an_output() -> None:
    model = SVC().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
    body = {"inputs": [column("x", "FP64", 0, 3)], "outputs": [{"name": "decision_function"}]}
    async with application(model) as client:
        (output,) = (await infer(client, body)).json()["outputs"]
        metadata = (await client.get("/v2/models/m")).json()
    assert output["data"] == pytest.approx(model.decision_function([[0.0], [3.0]]))
    assert {"name": "decision_function", "datatype": "FP64", "shape": [-1]} in metadata["outputs"]


class Neighbours:
    """An object of one's own: what it predicts for a row depends on the rows beside it."""

    serin_batches = False
    serin_allows_missing = True

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def predict(self, rows: Any) -> Any:
        self.calls.append(rows.shape)
        return np.nan_to_num(rows).reshape(len(rows), -1).sum(axis=1) - len(rows)


async def test_an_object_of_ones_own_says_what_it_takes() -> None:
    model = Neighbours()
    cube = {"name": "x", "shape": [2, 2, 2], "datatype": "FP32", "data": [[[1, 2], [3, None]], [[1, 1], [1, 1]]]}
    async with application(model) as client:
        answers = await asyncio.gather(*(infer(client, {"inputs": [cube]}) for _ in range(5)))
    assert [outputs(answer)["predict"] for answer in answers] == [[4.0, 2.0]] * 5
    assert model.calls == [(2, 2, 2)] * 5


@pytest.mark.parametrize(
    "model",
    [xgboost.XGBClassifier(n_estimators=5, enable_categorical=True), lightgbm.LGBMClassifier(n_estimators=5)],
    ids=["xgboost", "lightgbm"],
)
async def test_boosted_trees_take_matrices_and_columns_with_categories(model: Any) -> None:
    rng = np.random.default_rng(2)
    people = pd.DataFrame(
        {"age": rng.normal(size=200), "town": pd.Categorical(rng.choice(["Bonn", "Ulm", "Kiel"], 200))}
    )
    labels = ((people["town"] == "Ulm") ^ (people["age"] > 1)).astype(int)
    asked = people.head(3).assign(
        age=[0.0, np.nan, 2.0], town=pd.Categorical(["Ulm", "Kiel", "Ulm"], people["town"].cat.categories)
    )
    body = {"inputs": [column("age", "FP64", 0, None, 2), column("town", "BYTES", "Ulm", "Kiel", "Ulm")]}
    async with application(model.fit(people, labels)) as client:
        answer = await infer(client, body)
    assert outputs(answer)["predict"] == model.predict(asked).tolist()
    assert outputs(answer)["predict"][0] == 1
    matrix = people[["age"]].to_numpy()
    plain = model.fit(matrix, (matrix[:, 0] > 0).astype(int))
    proba = {"name": "predict_proba"}
    async with application(plain) as client:
        answer = await infer(client, {"inputs": [column("x", "FP64", -1, 1)], "outputs": [{"name": "predict"}, proba]})
        metadata = (await client.get("/v2/models/m")).json()
    assert outputs(answer)["predict"] == [0, 1]
    assert outputs(answer)["predict_proba"] == pytest.approx(plain.predict_proba([[-1.0], [1.0]]).ravel())
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 1]}]


# --- categories that boosted trees have learnt -----------------------------------------------------------------------

TOWNS = ["Bonn", "Kiel", "Ulm"]
FLOORS = [3, 5, 9]
HOMES = pd.DataFrame(
    {
        "age": np.linspace(-1, 1, 300),
        "town": pd.Categorical(np.resize(TOWNS, 300)),
        "floor": pd.Categorical(np.repeat(FLOORS, 100)),
    }
)
IN_ULM = (HOMES["town"] == "Ulm").astype(int)


@functools.cache
def boosted(kind: str) -> Any:
    if kind == "xgboost":
        return xgboost.XGBClassifier(n_estimators=5, enable_categorical=True).fit(HOMES, IN_ULM)
    return lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(HOMES, IN_ULM)


def home(town: Any, floor: Any = 3, age: Any = 0.0, types: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """A request with one row; `types` are other datatypes than the features have."""
    types = {"age": "FP64", "town": "BYTES", "floor": "INT64", **types}
    values = {"age": age, "town": town, "floor": floor}
    return {"inputs": [column(name, types[name], value) for name, value in values.items()]}


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
async def test_the_metadata_tells_which_features_have_categories(kind: str) -> None:
    async with application(boosted(kind)) as client:
        metadata = (await client.get("/v2/models/m")).json()
    assert {one["name"]: one["datatype"] for one in metadata["inputs"]} == {
        "age": "FP64",
        "town": "BYTES",
        "floor": "INT64",
    }


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
async def test_categories_are_those_of_the_training_and_not_of_the_request(kind: str) -> None:
    """A row alone, and beside others, is what the model itself says of it; a missing one as well."""
    model = boosted(kind)
    asked = pd.DataFrame(
        {
            "age": [0.0] * 4,
            "town": pd.Categorical(["Ulm", "Kiel", "Bonn", None], TOWNS),
            "floor": pd.Categorical([9, 5, 3, 3], FLOORS),
        }
    )
    towns = ["Ulm", "Kiel", "Bonn", None]
    rows = [column("age", "FP64", *[0.0] * 4), column("town", "BYTES", *towns), column("floor", "INT64", 9, 5, 3, 3)]
    async with application(model) as client:
        together = await infer(client, {"inputs": rows})
        alone = [await infer(client, home(town, floor)) for town, floor in zip(towns, [9, 5, 3, 3], strict=True)]
    expected = model.predict(asked).tolist()
    assert outputs(together)["predict"] == expected
    assert [outputs(answer)["predict"][0] for answer in alone] == expected
    assert expected[:3] == [1, 0, 0]


@pytest.mark.parametrize("town", ["Aachen", "Rom", "Zürich", ""])
async def test_a_category_that_xgboost_has_not_seen_is_refused(town: str) -> None:
    """It would take most of them for the next in its list, and fail on the others."""
    async with application(boosted("xgboost")) as client:
        answer = await infer(client, home(town))
        number = await infer(client, home("Ulm", 4))
    assert (answer.status_code, number.status_code) == (400, 400)
    told = f"town is {town!r}, which is not among the categories that the model knows: Bonn, Kiel, Ulm"
    assert answer.json()["error"] == told
    assert "floor is 4, which is not among the categories that the model knows: 3, 5, 9" in number.json()["error"]


async def test_a_category_that_lightgbm_has_not_seen_is_missing_to_it() -> None:
    """As when it is asked without a server."""
    async with application(boosted("lightgbm")) as client:
        answers = [
            await infer(client, {**home(town), "outputs": [{"name": "predict_proba"}]}) for town in ("Rom", None)
        ]
    assert outputs(answers[0])["predict_proba"] == outputs(answers[1])["predict_proba"]


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (home(1.0, types={"town": "FP64"}), "town has categories, which are strings"),
        (home("Ulm", "three", types={"floor": "BYTES"}), "floor has categories, which are numbers"),
        (home("Ulm", 3, "old", types={"age": "BYTES"}), "age holds strings, the model takes numbers"),
        ({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [0, 1, 2]}]}, "(town, floor)"),
    ],
)
async def test_a_column_of_another_kind_is_the_clients_mistake(kind: str, body: dict[str, Any], message: str) -> None:
    async with application(boosted(kind)) as client:
        answer = await infer(client, body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("booster", ["gbtree", "dart"])
@pytest.mark.parametrize("numbers", [np.int8, np.uint8, np.int16, np.int32, np.int64])
async def test_every_way_xgboost_keeps_categories_is_read(booster: str, numbers: Any) -> None:
    floors = pd.Categorical(HOMES["floor"].to_numpy(), np.array(FLOORS, dtype=numbers))
    # In no order, and one of them is never seen.
    towns = pd.Categorical(HOMES["town"].to_numpy(), ["Ulm", "Koeln", "Kiel", "Bonn"])
    people = pd.DataFrame({"age": np.zeros(len(HOMES)), "town": towns, "floor": floors})
    high = (HOMES["floor"].to_numpy() == 9).astype(int)
    model = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True, booster=booster).fit(people, high)
    async with application(model) as client:
        answers = [await infer(client, home("Koeln", floor)) for floor in FLOORS]
        refused = await infer(client, home("Rom"))
    assert [outputs(answer)["predict"] for answer in answers] == [[0], [0], [1]]
    assert "Ulm, Koeln, Kiel, Bonn" in refused.json()["error"]


def test_categories_that_xgboost_has_written_wrongly_are_refused() -> None:
    """It would answer for one of them as for another."""
    people = HOMES.assign(town=HOMES["town"].cat.rename_categories({"Bonn": "Köln"}))
    model = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True).fit(people, IN_ULM)
    with pytest.raises(FatalError, match="the categories of town have other characters") as failure:
        signature_of(model)
    assert failure.value.reason is Reason.LOAD_FAILED


async def test_an_onnx_model_with_inputs_of_several_datatypes_and_dimensions() -> None:
    images = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 2, 2])
    factors = helper.make_tensor_value_info("factor", TensorProto.INT64, [None, 1])
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, [None, 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("ReduceSum", ["image", "axes"], ["sums"], keepdims=0),
        helper.make_node("Unsqueeze", ["sums", "one"], ["column"]),
        helper.make_node("Cast", ["factor"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["column", "floats"], ["total"]),
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "g", [images, factors], [total], [axes, one])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    image = {"name": "image", "shape": [2, 2, 2], "datatype": "FP32", "data": list(range(8))}
    async with application(load_format(made.SerializeToString(), Format.ONNX, ())) as client:
        answer = await infer(client, {"inputs": [column("factor", "INT64", 1, 10), image]})
        alone = await infer(client, {"inputs": [image]})
        misshapen = await infer(client, {"inputs": [column("factor", "INT64", 1, 10), {**image, "shape": [2, 4]}]})
        metadata = (await client.get("/v2/models/m")).json()
    assert outputs(answer)["predict"] == [6, 220]
    assert "features factor are not among the inputs" in alone.json()["error"]
    assert "image has shape [2, 4], the model takes [-1, 2, 2]" in misshapen.json()["error"]
    assert metadata["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 2, 2]},
        {"name": "factor", "datatype": "INT64", "shape": [-1, 1]},
    ]


async def test_the_openapi_document_is_of_this_model() -> None:
    async with application(mixed(LogisticRegression())) as client:
        document = (await client.get("/openapi.json")).json()
        infer_path = document["paths"]["/v2/models/m/infer"]["post"]
        content = infer_path["requestBody"]["content"]["application/json"]
        body = {**content["example"], "outputs": [{"name": "predict"}]}
        answer = await infer(client, body)
        paths = [path for path, methods in document["paths"].items() if "get" in methods]
        statuses = {(await client.get(path)).status_code for path in paths}
    assert (document["openapi"], statuses) == ("3.1.0", {200})
    resolved = {**document, **content["schema"]}
    Draft202012Validator.check_schema(resolved)
    Draft202012Validator(resolved).validate(body)
    response_schema = infer_path["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({**document, **response_schema}).validate(answer.json())
    assert not Draft202012Validator(resolved).is_valid({"inputs": []})
    operations = [methods[verb]["operationId"] for methods in document["paths"].values() for verb in methods]
    assert len(operations) == len(set(operations))
