"""Callers that are kept in one arm: Envoy's matcher that draws callers instead of requests.

Who calls is in a header: the one that the user names, or CALLER, which the listener makes of a cookie or an address
before a route is looked for. A caller is drawn by the hash of that value and the canary's revision, so that one below
some weight is below all higher ones, and every canary begins with other callers.
"""

import hashlib
from typing import Any

from serin_operator.api.callers import Sticky

TYPE = "type.googleapis.com/"
CALLER = "x-serin-caller"

Table = list[dict[str, Any]]


def by_caller(sticky: Sticky, canary: str, weight: int, ours: Table, others: Table, drawn: Table) -> dict[str, Any]:
    """The matcher: callers below the weight go by `ours`, all others by `others`, those without a name are `drawn`."""
    fraction = "envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction"
    percent = {"default_value": {"numerator": weight, "denominator": "HUNDRED"}, "runtime_key": "serin.sticky"}
    below = {
        "name": "envoy.matching.matchers.runtime_fraction",
        "typed_config": {"@type": f"{TYPE}{fraction}", "runtime_fraction": percent, "seed": _seed(canary)},
    }
    named = _predicate(sticky, value_match={"safe_regex": {"google_re2": {}, "regex": ".+"}})
    drawn_below = {"and_matcher": {"predicate": [named, _predicate(sticky, custom_match=below)]}}
    return {
        "matcher_list": {
            "matchers": [
                {"predicate": drawn_below, "on_match": _by(ours)},
                {"predicate": named, "on_match": _by(others)},
            ]
        },
        "on_no_match": _by(drawn),
    }


def caller_mutations(sticky: Sticky | None) -> list[dict[str, Any]]:
    """What the listener does to a request's headers first: nobody but itself writes CALLER."""
    if sticky is None or sticky.header:
        return []
    value = _cookie(sticky.cookie) if sticky.cookie else "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    return [
        {"remove": CALLER},
        {"append": {"header": {"key": CALLER, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
    ]


def _cookie(name: str) -> str:
    """A cookie's value. Envoy has no word for one cookie, but an expression language."""
    pattern = f"(?:^|; ?){name.replace('.', '[.]')}=([^;]*)"
    return f"%CEL(re.extract(request.headers['cookie'], '{pattern}', '\\\\1'))%"


def _predicate(sticky: Sticky, **match: Any) -> dict[str, Any]:
    header = {"@type": f"{TYPE}envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": _header(sticky)}
    return {"single_predicate": {"input": {"name": "caller", "typed_config": header}, **match}}


def _header(sticky: Sticky) -> str:
    return sticky.header or CALLER


def _by(table: Table) -> dict[str, Any]:
    routes = {"@type": f"{TYPE}envoy.config.route.v3.RouteList", "routes": table}
    return {"action": {"name": "routes", "typed_config": routes}}


def _seed(revision: str) -> int:
    return int.from_bytes(hashlib.sha256(revision.encode()).digest()[:6])
