"""The definition as a file: its copies, its reference page, and that all of it has bounds and words."""

import runpy
from collections.abc import Mapping
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from tests.chart.tools import CHART, CRD, EXAMPLES, ROOT, Schema, load, walk

from serin_operator.api.status import Revision, Status


@pytest.fixture(scope="module")
def version() -> Schema:
    (version,) = load(CRD)["spec"]["versions"]
    found: Schema = version
    return found


@pytest.fixture(scope="module")
def fields(version: Schema) -> list[tuple[str, Schema]]:
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    return [*walk("spec", properties["spec"]), *walk("status", properties["status"])]


def test_names_are_those_that_users_type() -> None:
    spec = load(CRD)["spec"]
    assert (spec["group"], spec["scope"]) == ("serin.dev", "Namespaced")
    assert spec["names"] == {
        "kind": "ModelDeployment",
        "listKind": "ModelDeploymentList",
        "plural": "modeldeployments",
        "singular": "modeldeployment",
        "shortNames": ["mdep"],
        "categories": ["serin"],
    }


def test_the_charts_copy_is_the_definition() -> None:
    copy = CHART / "files" / "crd.yaml"
    assert copy.read_bytes() == CRD.read_bytes(), "run `make generate`"


def test_the_reference_page_is_the_generators() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate_reference.py"))
    page = (ROOT / "docs" / "reference.md").read_text()
    assert page == generator["render"](load(CRD)), "run `make generate`"


def test_every_field_of_the_spec_is_in_the_reference_page(fields: list[tuple[str, Schema]]) -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    names = {path.rsplit(".", 1)[-1] for path, _ in fields if path[-1] not in "]}" and "." in path}
    assert {name for name in names if f"| `{name}`" not in page} == set()


def test_every_link_in_the_reference_page_has_its_heading() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    headings = [line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")]
    anchors = {"".join(c for c in heading if c.isalnum()) for heading in headings}
    links = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert len(links) > 20
    assert links <= anchors


def test_every_field_says_what_it_is(fields: list[tuple[str, Schema]]) -> None:
    silent = [path for path, schema in fields if path[-1] not in "]}" and not schema.get("description")]
    assert silent == []


def test_every_string_list_and_map_is_bounded(fields: list[tuple[str, Schema]]) -> None:
    """Without bounds the API server refuses the rules for what they might cost."""

    def bounded(schema: Schema) -> bool:
        if schema.get("x-kubernetes-int-or-string") or "additionalProperties" in schema:
            return "pattern" in schema or "maxProperties" in schema
        if schema["type"] == "string":
            return "maxLength" in schema or "enum" in schema or schema.get("format") == "date-time"
        return schema["type"] != "array" or "maxItems" in schema

    assert [path for path, schema in fields if not bounded(schema)] == []


def test_the_status_is_the_one_that_the_operator_writes(version: Schema) -> None:
    """A field that the definition has not would be dropped by the API server, and with it the operator's memory."""
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert sorted(differences("status", Status, status)) == []


def differences(path: str, kind: Any, schema: Schema) -> list[str]:
    """Where a dataclass and its schema have other fields, or a field another type."""
    names = {camel(item.name): item for item in fields_of(kind)}
    declared = schema["properties"]
    # Only a revision that has left the traffic is kept for a while.
    optional = {"keptUntil"} if kind is Revision else set()
    found = [f"{path}.{name}" for name in (names.keys() ^ declared.keys()) - optional]
    hints = get_type_hints(kind)
    for name in names.keys() & declared.keys():
        item = names[name]
        found += mismatch(f"{path}.{name}", hints[item.name], declared[name], is_time=bool(item.metadata))
    return found


def mismatch(path: str, hint: Any, schema: Schema, is_time: bool) -> list[str]:
    if isinstance(hint, UnionType):
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if get_origin(hint) is tuple:
        return mismatch(f"{path}[]", get_args(hint)[0], schema["items"], is_time=False)
    if schema.get("x-kubernetes-preserve-unknown-fields"):  # nothing of it is dropped
        return [] if schema["type"] == "object" else [path]
    if is_dataclass(hint):
        return differences(path, hint, schema)
    if get_origin(hint) is Mapping:
        return [] if schema["type"] == "object" else [path]
    if is_time:
        return [] if schema.get("format") == "date-time" else [path]
    wanted = {str: "string", bool: "boolean", int: "integer", float: "number"}  # a bool is an int, too
    expected = next(name for base, name in wanted.items() if issubclass(hint, base))
    return [] if schema["type"] == expected else [path]


def camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def test_every_list_says_how_it_merges(fields: list[tuple[str, Schema]]) -> None:
    kinds = {path: schema.get("x-kubernetes-list-type") for path, schema in fields if schema.get("type") == "array"}
    assert {path for path, kind in kinds.items() if kind not in ("map", "atomic")} == set()


def test_every_rule_has_words_of_one_line(fields: list[tuple[str, Schema]], version: Schema) -> None:
    root = ("", version["schema"]["openAPIV3Schema"])
    rules = [(path, rule) for path, schema in [root, *fields] for rule in schema.get("x-kubernetes-validations", [])]
    assert len(rules) > 30
    assert [path for path, rule in rules if not rule.get("message") or "\n" in rule["message"]] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_one_commented_model_deployment(example: Any) -> None:
    manifest = load(example)
    assert (manifest["apiVersion"], manifest["kind"]) == ("serin.dev/v1alpha1", "ModelDeployment")
    assert "namespace" not in manifest["metadata"]
    assert example.read_text().startswith("# ")


def test_the_smallest_example_is_a_name_and_an_address() -> None:
    manifest = load(ROOT / "examples" / "minimal.yaml")
    assert list(manifest["metadata"]) == ["name"]
    assert list(manifest["spec"]) == ["model"]
    assert list(manifest["spec"]["model"]) == ["uri"]
