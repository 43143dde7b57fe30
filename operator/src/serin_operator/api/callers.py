"""`spec.traffic`, the part about who calls: testers, and callers that are kept in one arm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Testers:
    """Requests with this header, or with this cookie, reach the candidate at any weight. Each is (name, value)."""

    header: tuple[str, str] | None = None
    cookie: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Sticky:
    """What tells callers apart that are kept in one arm: a header, a cookie, or else the client's address."""

    header: str | None = None
    cookie: str | None = None


def parse_testers(raw: Mapping[str, Any]) -> Testers | None:
    """From `spec.traffic`; None where it names none."""
    if "testers" not in raw:
        return None
    header, cookie = raw["testers"].get("header"), raw["testers"].get("cookie")
    return Testers(
        header=(header["name"].lower(), header["value"]) if header else None,
        cookie=(cookie["name"], cookie["value"]) if cookie else None,
    )


def parse_sticky(raw: Mapping[str, Any]) -> Sticky | None:
    """From `spec.traffic`; None where every request is drawn by itself."""
    if "sticky" not in raw:
        return None
    header = raw["sticky"].get("header")
    return Sticky(header.lower() if header else None, raw["sticky"].get("cookie"))
