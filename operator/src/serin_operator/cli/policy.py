"""The policy of a command: a file (`--policy`), flags, or flags over a file."""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from serin_operator.api.spec import (
    Analysis,
    Goal,
    MetricType,
    Mode,
    Role,
    Rollout,
    parse_analysis,
    parse_rollout,
    seconds,
)
from serin_operator.cli.definition import Json, completed
from serin_operator.cli.errors import InputError
from serin_operator.cli.records import moment
from serin_operator.decide.roles import compares

DEFAULT_MARGIN = 0.02  # for metrics that flags name without a margin
Setting = tuple[str | None, Any]  # the metric that a flag is for (None: all), and the value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that make a policy, alike in every command."""
    group = parser.add_argument_group("policy", "NAME= before a value sets it for one metric only; may be repeated")
    group.add_argument(
        "--policy",
        metavar="FILE",
        help="YAML with the `analysis` and `rollout` of a ModelDeployment, or a whole one; - reads standard input",
    )
    for flag, convert, metavar, text in _METRIC_FLAGS:
        group.add_argument(
            f"--{flag}", type=_setting(convert), action="append", default=[], metavar=f"[NAME=]{metavar}", help=text
        )
    for flag, name, text in _RATE_FLAGS:
        group.add_argument(flag, name, type=rate, metavar="RATE", help=text)
    text = "the canary's shares and how long each lasts at least, such as 5:60s,25:60s,50:60s"
    group.add_argument("--steps", type=steps, metavar="WEIGHT:TIME,…", help=text)


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def whole(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def whole_from_0(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def positive(text: str) -> float:
    """A number above 0."""
    if (value := number(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def percent(text: str) -> float:
    """A share of the requests in per cent, between 0 and 100."""
    value = number(text.removesuffix("%"))
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100 per cent")
    return value


def dispersion(text: str) -> float:
    """A factor of overdispersion, at least 1."""
    if (value := number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1, where failures come independently of each other")
    return value


def rate(text: str) -> float:
    """A number between 0 and 1."""
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def part(text: str) -> float:
    """A share of something that there is, up to all of it."""
    if not 0 < (value := number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def duration(text: str) -> float:
    """Seconds, of a duration such as 90s or 1h30m."""
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def time(text: str) -> float:
    """Seconds since 1970, written so or as RFC 3339."""
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def steps(text: str) -> list[Json]:
    """`rollout.steps` as the resource writes them, from 5:60s,25:60s."""
    out: list[Json] = []
    for part in text.split(","):
        weight, colon, lasts = part.partition(":")
        if not (weight.strip().isdecimal() and 1 <= int(weight) <= 99):
            raise argparse.ArgumentTypeError(f"{part!r}: a step is a weight from 1 to 99 and a duration, such as 5:60s")
        if colon:
            duration(lasts.strip())
        out.append({"weight": int(weight)} | ({"duration": lasts.strip()} if colon else {}))
    if any(later["weight"] <= earlier["weight"] for earlier, later in pairwise(out)):
        raise argparse.ArgumentTypeError(f"{text}: the weights must rise from step to step")
    return out


def _word(words: Iterable[str]) -> Callable[[str], str]:
    by_lower = {word.lower(): str(word) for word in words}

    def convert(text: str) -> str:
        try:
            return by_lower[text.lower()]
        except KeyError:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(by_lower.values())}") from None

    return convert


def _setting(convert: Callable[[str], Any]) -> Callable[[str], Setting]:
    def split(text: str) -> Setting:
        name, equals, value = text.rpartition("=")
        return (name if equals else None), convert(value)

    return split


_RATE_FLAGS = (
    ("--alpha", "--false-rollback-rate", "how often a canary that is no worse may be rolled back (0.05 is 5 %%)"),
    ("--beta", "--false-promotion-rate", "how often a canary that is worse by the margin may be promoted"),
)
_METRIC_FLAGS: tuple[tuple[str, Callable[[str], Any], str, str], ...] = (
    ("margin", number, "SHARE", f"how much worse is not acceptable; {DEFAULT_MARGIN} when there is no policy file"),
    ("tolerance", number, "SHARE", "how much worse does not count as worse"),
    ("bound", number, "SHARE", "the share of failures that the canary may not exceed, whatever the stable does"),
    ("role", _word(Role), "ROLE", ", ".join(Role)),
    ("goal", _word(Goal), "GOAL", ", ".join(Goal)),
    ("weight", number, "NUMBER", "how much it counts towards a rollback"),
)


def metric_setting(convert: Callable[[str], Any]) -> Callable[[str], Setting]:
    """The type of a further flag that may be for one metric only, as in accuracy=0.05."""
    return _setting(convert)


def chosen(settings: Sequence[Setting], metric: str) -> Any:
    """What a flag says for this metric: its own value, else the one for all, else None."""
    values: dict[str | None, Any] = dict(settings)
    return values.get(metric, values.get(None))


def named(*flags: Sequence[Setting]) -> list[str]:
    """The metrics that these flags name."""
    return list(dict.fromkeys(name for settings in flags for name, _ in settings if name is not None))


def resolve(arguments: argparse.Namespace, names: Sequence[str] | None) -> tuple[Analysis, Rollout | None]:
    """The policy that the arguments ask for; without a policy file and steps it has no rollout part.

    names: the metrics, where no policy file names them; None for those of a ModelDeployment that names none. Raises
    InputError.
    """
    rollout: Json | None = None
    if arguments.policy:
        analysis, rollout = _load(arguments.policy)
        analysis = completed("analysis", analysis)
    elif names is None:
        analysis = completed("analysis", {})
    else:
        analysis = completed("analysis", {"metrics": [_bare(name, arguments) for name in names]})
    if arguments.steps:
        rollout = {**(rollout or {}), "mode": Mode.STEPS, "steps": arguments.steps}
    typed = parse_analysis(_with_flags(arguments, analysis))
    for metric in typed.metrics:
        if not 0 <= metric.tolerance < metric.margin < 1:
            what = f"margin {metric.margin:g} and tolerance {metric.tolerance:g}"
            raise InputError(f"metric {metric.name}: {what}; the margin must be below 1 and above the tolerance")
        if metric.weight <= 0:
            raise InputError(f"metric {metric.name}: weight {metric.weight:g}; a weight must be above 0")
        if metric.bound is not None and not 0 < metric.bound < 1:
            raise InputError(f"metric {metric.name}: bound {metric.bound:g}; a bound is a share between 0 and 1")
    wanted = None if rollout is None else parse_rollout(completed("rollout", rollout))
    if wanted is not None and not compares(wanted.strategy):
        text = f"serin: strategy {wanted.strategy} compares nothing; the answer is for the same policy as a canary"
        print(text, file=sys.stderr)
    return typed, wanted


def _bare(name: str, arguments: argparse.Namespace) -> Json:
    if chosen(arguments.margin, name) is None:
        print(f"serin: metric {name} has margin {DEFAULT_MARGIN}; set another with --margin", file=sys.stderr)
    plain = (MetricType.ERRORS.value, MetricType.ACCURACY.value)  # the others need to be told more, such as a class
    return {"name": name, "type": name if name in plain else MetricType.CUSTOM.value, "margin": DEFAULT_MARGIN}


def _with_flags(arguments: argparse.Namespace, analysis: Json) -> Json:
    names = [metric["name"] for metric in analysis["metrics"]]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise InputError(f"metric {', '.join(sorted(doubled))} comes twice in the policy; give each its own name")
    metrics = []
    for metric in analysis["metrics"]:
        flags = {flag: chosen(getattr(arguments, flag), metric["name"]) for flag, *_ in _METRIC_FLAGS}
        metrics.append(metric | {flag: value for flag, value in flags.items() if value is not None})
    for flag, *_ in _METRIC_FLAGS:
        check_names(f"--{flag}", getattr(arguments, flag), names)
    rates = {"falseRollbackRate": arguments.alpha, "falsePromotionRate": arguments.beta}
    return analysis | {"metrics": metrics} | {name: value for name, value in rates.items() if value is not None}


def check_names(flag: str, settings: Sequence[Setting], names: Sequence[str]) -> None:
    """Raises InputError when a flag is for a metric that there is not."""
    for name, value in settings:
        if name is not None and name not in names:
            raise InputError(f"{flag} {name}={value}: there is no metric {name}; the metrics are {', '.join(names)}")


def _load(path: str) -> tuple[Json, Json]:
    """`analysis` and `rollout` as the file has them."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {error}") from error
    found = [document for document in documents if _is_policy(document)]
    if len(found) != 1:
        raise InputError(
            f"{path}: {len(found)} policies; write one, with `analysis` and `rollout`, or a ModelDeployment"
        )
    policy = found[0].get("spec", {}) if "kind" in found[0] else found[0]
    parts = [{} if policy.get(part) is None else policy[part] for part in ("analysis", "rollout")]
    for part, value in zip(("analysis", "rollout"), parts, strict=True):
        if not isinstance(value, dict):
            raise InputError(f"{path}: {part} is {value!r}; write its fields below it")
    return parts[0], parts[1]


def _is_policy(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    if "kind" in document:
        return document["kind"] == "ModelDeployment" and isinstance(document.get("spec"), dict)
    return bool(document) and set(document) <= {"analysis", "rollout"}
