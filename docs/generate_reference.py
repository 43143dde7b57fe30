"""Write docs/reference.md from the definition in crds/.

The descriptions, defaults, bounds and rules are the definition's own, so the page cannot say anything else
than what the API server does. Run it after every change there: `make generate`.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CRD = ROOT / "crds" / "modeldeployments.serin.dev.yaml"
PAGE = ROOT / "docs" / "reference.md"

Schema = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """An object of the definition, under the path by which users know it (`spec.rollout.steps[]`)."""

    path: str
    schema: Schema
    description: str

    @property
    def anchor(self) -> str:
        """The heading's anchor, as GitHub makes it."""
        return "".join(c for c in self.path.lower() if c.isalnum() or c in "-_")

    @property
    def fields(self) -> dict[str, Schema]:
        fields: dict[str, Schema] = self.schema["properties"]
        return fields


def shape(schema: Schema) -> str:
    """Equal for objects with the same fields, so that each kind of object is described once."""
    return json.dumps(schema["properties"], sort_keys=True)


def sections(section: Section) -> Iterator[Section]:
    """The object itself, then every object below it, depth first."""
    yield section
    for name, field in section.fields.items():
        inner, suffix = (field["items"], "[]") if field.get("type") == "array" else (field, "")
        if "properties" in inner:
            yield from sections(Section(f"{section.path}.{name}{suffix}", inner, field["description"]))


def type_of(field: Schema, links: dict[str, Section]) -> str:
    """A field's type and bounds in words, linked to the section that describes it when it has fields."""
    if field.get("type") == "array":
        return f"list of {type_of(field['items'], links)}{items_bound(field)}"
    if "properties" in field:
        return f"[object](#{links[shape(field)].anchor})"
    if "additionalProperties" in field:
        return f"map of {type_of(field['additionalProperties'], links)}"
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field.get("x-kubernetes-preserve-unknown-fields"):
        return "as in a Pod" if field.get("description") == "As in a Pod." else "object"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("format") == "date-time":
        return "time"
    if any("duration(self)" in rule["rule"] for rule in field.get("x-kubernetes-validations", [])):
        return "duration"
    return f"{field['type']}{number_bound(field)}"


def items_bound(field: Schema) -> str:
    most, least = field.get("maxItems"), field.get("minItems", 0)
    if most is None:
        return ""
    return f", {least} to {most}" if least else f", at most {most}"


def number_bound(field: Schema) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    return f", at least {least}" if least is not None else ""


def default_of(field: Schema) -> str:
    """The default as it would be written; an object's own defaults are those of its fields."""
    if "default" not in field or field["default"] == {}:
        return ""
    value = field["default"]
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def rules_of(section: Section) -> list[str]:
    """What the API server answers when the object or one of its own fields breaks a rule."""
    found = list(section.schema.get("x-kubernetes-validations", []))
    for field in section.fields.values():
        inner = field.get("additionalProperties") if "additionalProperties" in field else None
        described_elsewhere = "properties" in field
        for schema in (field, inner):
            if schema and not described_elsewhere:
                found += schema.get("x-kubernetes-validations", [])
    return list(dict.fromkeys(rule["message"] for rule in found))


def table(section: Section, links: dict[str, Section]) -> Iterator[str]:
    with_defaults = any(default_of(field) for field in section.fields.values())
    required = section.schema.get("required", [])
    yield "| Field | Type |" + (" Default |" if with_defaults else "") + " Description |"
    yield "|---|---|" + ("---|" if with_defaults else "") + "---|"
    for name, field in section.fields.items():
        cells = [f"`{name}`" + (" (required)" if name in required else ""), type_of(field, links)]
        if with_defaults:
            cells.append(default_of(field))
        cells.append(field.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def describe(section: Section, links: dict[str, Section]) -> Iterator[str]:
    yield f"### {section.path}"
    yield ""
    yield section.description
    yield ""
    yield from table(section, links)
    yield ""
    rules = rules_of(section) if not section.path.startswith("status") else []
    if rules:
        yield "Rules:"
        yield ""
        yield from (f"- {rule}" for rule in rules)
        yield ""


def top_section(root: Schema, name: str) -> Section:
    schema = root["properties"][name]
    return Section(name, schema, schema["description"])


def render(crd: Schema) -> str:
    """The page for a definition with one version."""
    (version,) = crd["spec"]["versions"]
    names = crd["spec"]["names"]
    root = version["schema"]["openAPIV3Schema"]
    halves = [list(sections(top_section(root, half))) for half in ("spec", "status")]
    links: dict[str, Section] = {}
    for section in (section for half in halves for section in half):
        links.setdefault(shape(section.schema), section)

    short = names["shortNames"][0]
    lines = [
        "<!-- Written by docs/generate_reference.py from crds/. Change the descriptions there. -->",
        f"# {names['kind']} reference",
        "",
        f"`apiVersion: {crd['spec']['group']}/{version['name']}`, `kind: {names['kind']}`.",
        root["description"],
        "",
        f"`kubectl get {short}` lists them, and `kubectl explain {short}.spec` shows this page's words in a",
        "terminal. [examples](../examples) has some to begin with.",
        "",
        "A duration is written as in Go: `500ms`, `90s`, `1h30m`. A quantity is written as everywhere in",
        "Kubernetes: `500m`, `2Gi`. The API server refuses what breaks a rule below, in these words.",
        "",
        *(f"- {rule['message']}" for rule in root["x-kubernetes-validations"]),
        "",
        "`kubectl get` shows:",
        "",
        "| Column | Meaning |",
        "|---|---|",
        *(column(entry) for entry in version["additionalPrinterColumns"]),
        "",
    ]
    for title, half in zip(("Spec", "Status"), halves, strict=True):
        lines += [f"## {title}", ""]
        for section in half:
            if links[shape(section.schema)] is section:
                lines += describe(section, links)
    return "\n".join(lines).rstrip() + "\n"


def column(entry: Schema) -> str:
    wide = " (with `-o wide`)" if entry.get("priority") else ""
    return f"| {entry['name']}{wide} | {entry['description']} |"


def main() -> int:
    PAGE.write_text(render(yaml.safe_load(CRD.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
