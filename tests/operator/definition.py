"""The CRD as the API server uses it: its defaults for specs, its limits and its pruning for statuses."""

import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from serin_operator.api.spec import Spec, parse_spec

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "crds" / "modeldeployments.serin.dev.yaml"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_WHOLE_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Json = dict[str, Any]


@cache
def schema(part: str) -> Json:
    """The schema of `spec` or `status`."""
    definition = yaml.safe_load(CRD.read_text())
    found: Json = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    return found


def defaulted(raw: Json, schema_: Json | None = None) -> Json:
    """A spec after the API server's defaulting: absent properties get their `default`, then theirs are filled in."""
    value: Json = _filled(deepcopy(raw), schema("spec") if schema_ is None else schema_)
    return value


def _filled(value: Any, schema_: Json) -> Any:
    if isinstance(value, dict):
        for name, property_ in schema_.get("properties", {}).items():
            if name not in value and "default" in property_:
                value[name] = deepcopy(property_["default"])
            if name in value:
                value[name] = _filled(value[name], property_)
    elif isinstance(value, list):
        return [_filled(item, schema_["items"]) for item in value]
    return value


def merged(base: Json, changes: Json) -> Json:
    """`base` with `changes` put in, objects key by key and everything else as a whole; None takes a key away."""
    out = dict(base)
    for key, value in changes.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


def raw_spec(**changes: Any) -> Json:
    """The `spec` of a small ModelDeployment with these changes, as the API server stores it."""
    return defaulted(merged({"model": {"uri": "https://models.example.com/iris.joblib", "sha256": "0" * 64}}, changes))


def make_spec(**changes: Any) -> Spec:
    """The same, typed."""
    return parse_spec(raw_spec(**changes))


def status_problems(raw: Json) -> list[str]:
    """What the API server would refuse in a status, or silently drop from it."""
    return [f"{error.json_path}: {error.message[:300]}" for error in _status_validator().iter_errors(raw)]


@cache
def _status_validator() -> Any:
    formats = jsonschema.FormatChecker(formats=())
    formats.checks("date-time")(lambda text: _RFC3339.fullmatch(text) is not None)
    strict = _without_pruning(schema("status"))
    time = strict["properties"]["conditions"]["items"]["properties"]["lastTransitionTime"]
    time["pattern"] = _WHOLE_SECONDS.pattern  # metav1.Time is written so, and clients of conditions parse only that
    return jsonschema.Draft202012Validator(strict, format_checker=formats)


def _without_pruning(schema_: Json) -> Json:
    """The same schema, but with an error where the API server drops an unknown field without a word."""
    out: Json = {}
    for key, value in schema_.items():
        if key == "properties":
            out[key] = {name: _without_pruning(inner) for name, inner in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = _without_pruning(value)
        else:
            out[key] = value
    if "properties" in out and not out.get("x-kubernetes-preserve-unknown-fields"):
        out["additionalProperties"] = False
    return out
