"""Parts of Prometheus' text format, for series so many that the library would take too long on the event loop."""

from prometheus_client.utils import floatToGoString


def number(value: float) -> str:
    """A sample's value, as the library writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def head(name: str, kind: str, text: str) -> str:
    """The lines before a family's samples."""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def labels(**values: str) -> str:
    """Labels as they stand between braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
