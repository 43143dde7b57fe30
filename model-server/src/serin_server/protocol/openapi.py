"""An OpenAPI 3.1 document of the server's paths, for the model that it serves."""

from typing import Any

from serin_server.protocol.datatypes import DATATYPES
from serin_server.protocol.metadata import ModelMetadata, tensor_json
from serin_server.protocol.tensors import TensorSpec

_EXAMPLES = {"BYTES": "text", "BOOL": True}


def document(model: ModelMetadata, server_version: str) -> dict[str, Any]:
    """The document as JSON values."""
    base = f"/v2/models/{model.name}"
    health = {"200": _answer("Yes"), "503": _answer("The server drains")}
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("serverMetadata", "Name, version and extensions of the server")},
        "/v2/health/live": {"get": _operation("serverLive", "Whether the server lives")},
        "/v2/health/ready": {"get": _operation("serverReady", "Whether the server takes requests", health)},
        "/metrics": {"get": _operation("metrics", "Prometheus metrics", {"200": _text("Metrics")})},
        f"{base}/feedback": {"post": _feedback()},
    }
    for suffix, name in (("", ""), *((f"/versions/{version}", "Version") for version in model.versions)):
        paths[f"{base}{suffix}"] = {"get": _operation(f"model{name}Metadata", "What the model takes and answers")}
        paths[f"{base}{suffix}/ready"] = {"get": _operation(f"model{name}Ready", "Whether it is ready", health)}
        paths[f"{base}{suffix}/infer"] = {"post": _infer(f"infer{name}", model)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{model.name}, served by Serin",
            "version": model.versions[0],
            "description": f"The Open Inference Protocol V2, by Serin's model server {server_version}.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(model)},
    }


def _operation(name: str, summary: str, responses: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": responses or {"200": _answer(summary)}}


def _answer(description: str, schema: str | None = None) -> dict[str, Any]:
    content = {"type": "object"} if schema is None else _ref(schema)
    return {"description": description, "content": {"application/json": {"schema": content}}}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _infer(name: str, model: ModelMetadata) -> dict[str, Any]:
    example = {"inputs": [{**tensor_json(_one_row(spec)), "data": _data(spec)} for spec in model.inputs]}
    return {
        "operationId": name,
        "summary": "Predict",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("InferRequest"), "example": example}},
        },
        "responses": {
            "200": _answer("Predictions", "InferResponse"),
            "400": _answer("The request does not fit the protocol or the model", "Error"),
            "413": _answer("The body is too large", "Error"),
            "500": _answer("The model failed", "Error"),
            "503": _answer("As many requests wait as the server takes", "Error"),
            "504": _answer("The request's deadline passed", "Error"),
        },
    }


def _feedback() -> dict[str, Any]:
    label = {
        "type": "object",
        "required": ["prediction_id", "label"],
        "properties": {"prediction_id": {"type": "string"}, "label": {"type": ["string", "number", "boolean"]}},
    }
    return {
        "operationId": "feedback",
        "summary": "Tell the true labels of predictions",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "array", "items": label}}},
        },
        "responses": {"200": _answer("What was counted"), "400": _answer("The body is malformed", "Error")},
    }


def _one_row(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, spec.datatype, tuple(1 if size == -1 else size for size in spec.shape))


def _data(spec: TensorSpec) -> list[Any]:
    count = 1
    for size in _one_row(spec).shape:
        count *= size
    return [_EXAMPLES.get(spec.datatype, 0)] * count


def _schemas(model: ModelMetadata) -> dict[str, Any]:
    parameters = {"type": "object"}
    tensor = {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
        "datatype": {"enum": list(DATATYPES)},
        "parameters": parameters,
        "data": {"type": "array"},
    }
    output_names = [spec.name for spec in model.outputs]
    return {
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "parameters": parameters,
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "object", "required": ["name", "shape", "datatype"], "properties": tensor},
                },
                "outputs": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"enum": output_names}, "parameters": parameters},
                    },
                },
            },
        },
        "InferResponse": {
            "type": "object",
            "required": ["model_name", "outputs"],
            "properties": {
                "model_name": {"const": model.name},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "outputs": {
                    "type": "array",
                    "items": {"type": "object", "required": ["name", "shape", "datatype"], "properties": tensor},
                },
            },
        },
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }
