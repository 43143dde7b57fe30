"""The documentation says what the code does: examples, links, make targets, reasons, decisions, failures, metrics.

Reasons and decisions are strings in the operator's code, so they are read from its syntax tree.
"""

import ast
import asyncio
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from math import log
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sklearn.linear_model import LogisticRegression
from tests.model_server.serving import serving_settings

from serin_operator.act import announce
from serin_operator.api.spec import Goal, MetricType, Role, seconds
from serin_operator.api.spec import Metric as SpecMetric
from serin_operator.api.status import Phase
from serin_operator.decide import reports
from serin_operator.decide.verdict import BoundOdds, Finding, Standing
from serin_operator.observe import pods
from serin_server.drift.build import build
from serin_server.failures import Reason
from serin_server.monitor.activity import Refused
from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.cohorts import WINDOWS
from serin_server.monitor.keys import Keyring
from serin_server.monitor.tokens import Refusal
from serin_server.payload_log.settings import PayloadLogSettings
from serin_server.processes.shared import Alone
from serin_server.runtime.model import Model
from serin_server.serve import Loaded, make_app, make_server, payload_log_for
from serin_server.shadow.answers import Batch, Told, ToldLabel

ROOT = Path(__file__).parents[2]
OPERATOR = ROOT / "operator" / "src" / "serin_operator"
GUIDE = ROOT / "docs" / "guide.md"
METRICS = ROOT / "docs" / "metrics.md"
STATUS = ROOT / "docs" / "status.md"
MODEL_SERVER = ROOT / "docs" / "model-server.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("charts/*/README.md")])

_CODE = re.compile(r"`([^`\n]+)`")
_CONDITIONS = {"Ready", "MetricsAvailable"}


# --- reading the pages -----------------------------------------------------------------------------------------


def section(page: Path, heading: str) -> str:
    """The text below a heading, up to the next heading of any level."""
    text = page.read_text()
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no heading {heading!r}"
    return found[1]


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of all table rows in a section, headers left out."""
    lines = section(page, heading).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rules = [number for number, row in enumerate(rows) if all(set(cell) <= set("-: ") and cell for cell in row)]
    assert rules, f"{page.name}, {heading}: no table"
    return [row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules]


def code(text: str) -> list[str]:
    """What stands in backticks."""
    return _CODE.findall(text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- reading the code ------------------------------------------------------------------------------------------


Names = Mapping[str, list[str]]


@cache
def calls(name: str) -> list[tuple[ast.Call, Names]]:
    """Every call of this function in the operator, with the strings that names stand for where it is called."""
    found: list[tuple[ast.Call, Names]] = []
    for path in OPERATOR.rglob("*.py"):
        tree = ast.parse(path.read_text())
        constants = assigned(tree.body)
        functions = [
            node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
        rest = [node for node in tree.body if node not in functions]
        for part in [*functions, ast.Module(rest, [])]:
            nodes = list(ast.walk(part))
            names = {**constants, **assigned(nodes)}
            found += [(node, names) for node in nodes if isinstance(node, ast.Call) and is_named(node.func, name)]
    return found


def is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def assigned(nodes: Iterable[ast.AST]) -> dict[str, list[str]]:
    """The strings that these assignments give to single names."""
    return {
        node.targets[0].id: strings(node.value)
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and strings(node.value)
    }


def strings(node: ast.expr, names: Names = MappingProxyType({})) -> list[str]:
    """The strings that an expression can be, as far as they are written: "A", "A" if … else "B", or a name for them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return strings(node.body, names) + strings(node.orelse, names)
    if isinstance(node, ast.Name):
        return names.get(node.id, [])
    return []


def arguments(name: str, position: int) -> set[str]:
    """The strings that calls of this function have at this position."""
    return {
        text for call, names in calls(name) if len(call.args) > position for text in strings(call.args[position], names)
    }


def rollback_reasons() -> set[str]:
    """Why evidence rolls back."""
    return {*reports.ROLLBACK_REASONS.values(), reports.OVER_BOUND}


def reject_reasons() -> set[str]:
    """The reasons for turning a canary down that are written in the code."""
    return rollback_reasons() | arguments("reject", 2)


def written_decisions() -> set[tuple[str, str]]:
    """(decision, reason) of every Record whose words are written in the code, and of every rollback."""
    pairs = {("RolledBack", reason) for reason in reject_reasons()}
    pairs |= {
        ("Rejected", reason) for reason in ("NotReady", "Inconclusive", "Aborted")
    }  # before the canary had traffic
    for call, names in calls("Record"):
        if len(call.args) > 2:
            reasons = strings(call.args[2], names)
            pairs |= {(decision, reason) for decision in strings(call.args[1], names) for reason in reasons}
    return pairs


def condition_reasons() -> set[str]:
    """Reasons of conditions that the operator's code spells out; those of containers come on top."""
    found = arguments("Activity", 0) | arguments("Told", 1) | reject_reasons()
    found |= arguments("unseen", 0)
    tree = ast.parse((OPERATOR / "decide" / "conditions.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple) and len(node.elts) == 4 and set(strings(node.elts[0])) & _CONDITIONS:
            found |= set(strings(node.elts[2]))
    return found


def container_reasons() -> set[str]:
    """Reasons that `observe/pods.py` gives for containers that leave no message of their own."""
    found = set(pods._WAITING_FOR_IMAGE)
    tree = ast.parse((OPERATOR / "observe" / "pods.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "reason" for t in node.targets):
            found |= set(strings(node.value))
        if isinstance(node, ast.Compare):  # waiting.get("reason") == "…"
            names = {text for side in (node.left, *node.comparators) for text in strings(side)}
            found |= {name for name in names if name.endswith("Error")}
        # condition.get("reason", "Unschedulable")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            found |= {text for argument in node.args[1:] for text in strings(argument) if text.startswith("Unsched")}
        # Trouble("FailedCreate", refusal)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Trouble":
            found |= {text for text in strings(node.args[0]) if text.startswith("Failed")}
    return found


# --- tests -----------------------------------------------------------------------------------------------------


def test_readmes_smallest_resource_is_the_example() -> None:
    shown = re.search(r"```yaml\n(.*?)```", section(ROOT / "README.md", "The smallest ModelDeployment"), re.DOTALL)
    assert shown
    assert yaml.safe_load(shown[1]) == yaml.safe_load((ROOT / "examples" / "minimal.yaml").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    in_blocks = "\n".join(re.findall(r"^(?: {4}|\t)(.*)$", text, re.MULTILINE))
    mentioned = {
        name for piece in [*code(text), in_blocks] for name in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)\b", piece)
    }
    assert mentioned <= targets


def test_every_phase_is_listed() -> None:
    assert [name for row in table(STATUS, "Phases") for name in code(row[0])] == [phase.value for phase in Phase]


def test_every_verdict_is_listed() -> None:
    listed = [name for row in table(STATUS, "Verdicts of a metric") for name in code(row[0])]
    assert listed == [finding.value for finding in Finding]


def test_the_reasons_of_conditions_are_listed() -> None:
    listed = [name for row in table(STATUS, "Conditions and their reasons") for name in code(row[1])]
    assert len(listed) == len(set(listed))
    assert set(listed) == condition_reasons()


def test_the_decisions_are_listed() -> None:
    rows = table(STATUS, "Decisions")
    listed = {(decision, reason) for row in rows for decision in code(row[0]) for reason in code(row[1])}
    assert listed == written_decisions()


def test_the_holds_that_become_events_are_listed() -> None:
    last = section(STATUS, "Decisions").partition("when a hold begins:")[2]
    assert set(code(last)) == announce._HOLDS


def test_the_remarks_are_listed() -> None:
    assert {name for row in table(STATUS, "Remarks") for name in code(row[0])} == arguments("Remark", 0)


def test_a_metrics_sentences_are_worded_as_the_reports_do() -> None:
    """The excerpt on the page, from the counts and odds that it tells."""
    metric = SpecMetric("accuracy", MetricType.ACCURACY, 0.02, bound=0.1)
    standing = Standing(
        name=metric.name,
        guards=metric.guards,
        gates=metric.gates,
        weight=metric.weight,
        goal=metric.goal,
        log_e_worse=log(0.067),
        log_e_non_inferior=log(4.8),
        log_e_superior=log(0.5),
        bound=BoundOdds(log(0.015), log(18131), log(0.0012)),
    )
    facts = reports.Facts(
        metric,
        standing,
        classes=(),
        counts=[[35, 691, 81, 1606]],
        difference=35 / 691 - 81 / 1606,
        low=-0.05,
        high=0.05,
        odds_alone=60.0,
        canary_trials=820.0,
    )
    told = reports.report(facts, alpha=0.05, beta=0.05)
    shown = " ".join(section(STATUS, "A metric").split())
    assert told.message in shown
    assert told.needed in shown
    assert f"Verdict: {told.verdict}" in shown


def test_failures_are_listed_with_their_exit_codes() -> None:
    rows = table(STATUS, "Failures of pods")
    own = [(name, int(row[1]), row[2] == "yes") for row in rows if row[1] for name in code(row[0])]
    assert own == [
        (reason.label, reason.exit_code, reason.exit_code in pods._PERMANENT_EXITS)
        for reason in sorted(Reason, key=lambda reason: reason.exit_code)
    ]


def test_the_failures_of_silent_containers_are_listed() -> None:
    rows = [row for row in table(STATUS, "Failures of pods") if not row[1]]
    assert {name for row in rows for name in code(row[0])} == container_reasons()
    finals = {row[2] for row in rows if set(code(row[0])) & {"Crashed", "OutOfMemory"}}
    assert finals == {f"after {pods._CRASHES_UNTIL_PERMANENT}"}


def test_every_type_of_metric_is_listed() -> None:
    assert [name for row in table(METRICS, "Types") for name in code(row[0])] == [kind.value for kind in MetricType]


def test_roles_are_listed_with_what_they_may_do() -> None:
    roles, goals = [], []
    for row in table(METRICS, "Roles and goals"):
        (name,) = code(row[0])
        if name in set(Goal):
            goals.append(name)
            continue
        metric = SpecMetric("errors", MetricType.ERRORS, 0.01, role=Role(name))
        assert [row[1], row[2]] == ["yes" if may else "no" for may in (metric.guards, metric.gates)]
        roles.append(name)
    assert (roles, goals) == ([role.value for role in Role], [goal.value for goal in Goal])


def test_label_windows_are_those_that_the_model_server_counts() -> None:
    (version,) = yaml.safe_load((ROOT / "crds" / "modeldeployments.serin.dev.yaml").read_text())["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    allowed = spec["analysis"]["properties"]["labelWindow"]["enum"]
    assert [seconds(window) for window in allowed] == [0.0, *WINDOWS]
    listed = [name for name in code(section(METRICS, "Labels that come late")) if name in allowed]
    assert listed == [*allowed[1:], allowed[0]]


def test_reasons_to_refuse_a_label_are_listed() -> None:
    listed = {name for row in table(GUIDE, "Send labels") for name in code(row[0])}
    assert listed == {refusal.label for refusal in Refusal}


def test_the_model_servers_metrics_are_listed(tmp_path: Path) -> None:
    """Those of a server with all that can be counted; labels as far as there is a series."""
    columns = {"x0": np.arange(8.0)}
    payload_log = PayloadLogSettings(tmp_path, include=())
    settings = replace(serving_settings(), payload_log=payload_log)
    model = Model(LogisticRegression().fit(columns["x0"].reshape(-1, 1), [0, 1] * 4))
    profile = build(columns, None, model.classes, bins=2)
    log = payload_log_for(model, settings, payload_log)
    loaded = Loaded(settings, model, Keyring.of(bytes(32)), 1.0, profile, log)
    app = make_app(loaded)
    metrics = app.served.metrics
    metrics.feedback_refused("damaged")
    pairs, made = cast(Alone, app.shared).book.pairs, 1_800_000_000
    pairs.answered([Told("key", "", Outcome(Kind.NUMBER, "1"), made)])
    theirs = [Told("key", "nonce", Outcome(Kind.NUMBER, "0"))]
    pairs.take(Batch("aaaaaaaaaa", theirs, [ToldLabel("nonce", 1, made)], window=60), made)
    pairs.answered([Told("other", "", Outcome(Kind.QUANTITY, "1"), made)])
    pairs.take(Batch("aaaaaaaaaa", [Told("other", "", Outcome(Kind.QUANTITY, "2"))], [], window=60), made + 70)
    pairs.take(Batch("aaaaaaaaaa", [], [], window=60), made + 80)
    metrics.error_counted("0123456789", 0.5, "first", 1_800_000_000, 1_800_000_001.0)

    async def told() -> str:
        make_server(loaded, app)
        return metrics.render(1_800_000_002.0).decode()

    exposed = {}
    for family in text_string_to_metric_families(asyncio.run(told())):
        if family.name.startswith("serin_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            exposed[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    listed = {code(row[0])[0]: set(code(row[1])) for row in table(MODEL_SERVER, "Metrics")}
    assert listed == exposed


def test_the_reasons_of_refusals_are_listed() -> None:
    listed = {code(row[-1])[0] for row in table(MODEL_SERVER, "Processes and limits") if len(row) == 4}
    assert listed == set(Refused)


def test_the_operators_metrics_are_listed() -> None:
    defined: dict[str, set[str]] = {}
    for kind in ("Counter", "Gauge", "Histogram"):
        for call, _ in calls(kind):
            if call.args and strings(call.args[0]):
                labels = ast.literal_eval(call.args[2]) if len(call.args) > 2 else []
                defined[strings(call.args[0])[0]] = set(labels)
    listed = {code(row[0])[0]: set(code(row[1])) for row in table(STATUS, "Of the operator")}
    assert listed == defined


def test_contributing_says_why_each_dependency_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    direct = {re.split(r"[<>=\[; ]", dependency)[0] for group in groups for dependency in group}
    rows = [row for row in table(ROOT / "CONTRIBUTING.md", "Dependencies") if len(row) == 3]
    assert {name.strip() for row in rows for name in row[0].split(",")} == direct
