"""The resource's definition: the only place of the defaults, so the command line reads them from it too."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from serin_operator.cli.errors import InputError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # both are safe; the C one is ten times faster
_NAME = "modeldeployments.serin.dev.yaml"
Json = dict[str, Any]


def completed(part: str, raw: Mapping[str, Any]) -> Json:
    """`spec.analysis` or `spec.rollout` as the API server stores it, checked and with its defaults.

    Raises InputError naming the field. The rules that the definition writes as CEL are left to the API server.
    """
    schema = _schema(part)
    value: Json = _filled(deepcopy(dict(raw)), schema)
    validator = jsonschema.Draft202012Validator(_closed(schema))
    if error := jsonschema.exceptions.best_match(validator.iter_errors(value)):
        raise InputError(f"{part}{error.json_path.removeprefix('$')}: {error.message}")
    return value


@cache
def _schema(part: str) -> Json:
    packaged = files("serin_operator") / _NAME
    text = packaged.read_text() if packaged.is_file() else (Path(__file__).parents[4] / "crds" / _NAME).read_text()
    schema = yaml.load(text, _LOADER)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]  # noqa: S506
    found: Json = schema["properties"]["spec"]["properties"][part]
    return found


def _filled(value: Any, schema: Json) -> Any:
    """Absent properties get their default, and then theirs are filled in."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = deepcopy(inner["default"])
            if name in value:
                value[name] = _filled(value[name], inner)
    elif isinstance(value, list):
        return [_filled(item, schema["items"]) for item in value]
    return value


def _closed(schema: Json) -> Json:
    """The same schema, which refuses the fields that it does not name."""
    out = dict(schema)
    if "properties" in schema:
        out["properties"] = {name: _closed(inner) for name, inner in schema["properties"].items()}
        out["additionalProperties"] = False
    if "items" in schema:
        out["items"] = _closed(schema["items"])
    return out
