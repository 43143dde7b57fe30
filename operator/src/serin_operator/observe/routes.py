"""Routes of kinds that a cluster may not have: watched as soon as it has them, and told missing until then.

Kopf leaves a kind alone for good that is not there when it starts, so these are followed here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol

import aiohttp

from serin_operator.api import LABEL_OWNER
from serin_operator.api.spec import RouterType
from serin_operator.build.gateway import GRPC_ROUTE, HTTP_ROUTE
from serin_operator.build.istio import DESTINATION_RULE, VIRTUAL_SERVICE
from serin_operator.build.owner import Existing

_LOGGER = logging.getLogger("serin.routes")
_WATCH_SECONDS = 60  # a connection that the other side has forgotten is noticed soon after
_AGAIN_SECONDS = 5.0  # after a kind was not there, or a watch broke
KINDS: Mapping[RouterType, tuple[str, ...]] = {
    RouterType.GATEWAY_API: (HTTP_ROUTE, GRPC_ROUTE),
    RouterType.ISTIO: (VIRTUAL_SERVICE, DESTINATION_RULE),
}

Place = tuple[str, str]  # namespace and name
Raw = Mapping[str, Any]


class State(StrEnum):
    """What is known of a kind: not asked for, nothing yet, not in the cluster, not allowed, or all objects of it."""

    DISABLED = "Disabled"
    UNKNOWN = "Unknown"
    MISSING = "Missing"
    FORBIDDEN = "Forbidden"
    KNOWN = "Known"


class Source(Protocol):
    """An API server that lists and watches; `act.client.Client` is one."""

    async def listed(self, kind: str, namespace: str | None, selector: str) -> tuple[list[dict[str, Any]], str]:
        """All objects, and the version of the list."""

    def changes(
        self, kind: str, namespace: str | None, selector: str, version: str, seconds: int
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Every change since that version."""


class Routes:
    """The routes that bear Serin's label, live. enabled: the routers whose kinds the operator may read and write."""

    def __init__(self, enabled: tuple[RouterType, ...], namespaces: tuple[str, ...]) -> None:
        self._scopes: tuple[str | None, ...] = namespaces or (None,)
        self._kinds = tuple(kind for router in enabled for kind in KINDS[router])
        self._states: dict[tuple[str, str | None], State] = {}
        self._found: dict[tuple[str, str | None], dict[Place, Raw]] = {}

    def state(self, kind: str, namespace: str) -> State:
        """What is known of a kind in a namespace: of another nothing is to be concluded."""
        if kind not in self._kinds:
            return State.DISABLED
        scope = namespace if namespace in self._scopes else None
        return self._states.get((kind, scope), State.UNKNOWN)

    def writable(self, kind: str, namespace: str) -> bool:
        """Whether an object of this kind can be written there: the kind is known, or always there."""
        optional = any(kind in kinds for kinds in KINDS.values())
        return not optional or self.state(kind, namespace) is State.KNOWN

    def get(self, kind: str, place: Place) -> Raw | None:
        """One route, if it is there."""
        found = (self._found.get((kind, scope), {}).get(place) for scope in (place[0], None))
        return next((raw for raw in found if raw is not None), None)

    def objects_of(self, place: Place) -> list[Existing]:
        """The routes that Serin made for one ModelDeployment, of the kinds that can be written now.

        What is not written now must not be taken for unwanted.
        """
        return [
            Existing.of(raw, kind)
            for (kind, _), found in self._found.items()
            if self.writable(kind, place[0])
            for (namespace, _), raw in found.items()
            if (namespace, raw["metadata"]["labels"][LABEL_OWNER]) == place
        ]

    async def follow(self, source: Source, wake: Callable[[Place | None], None]) -> None:
        """Follows every kind, for as long as it runs. wake: with a ModelDeployment, or None for all of them."""
        async with asyncio.TaskGroup() as tasks:
            for kind in self._kinds:
                for scope in self._scopes:
                    tasks.create_task(self._follow(source, wake, kind, scope))

    async def _follow(self, source: Source, wake: Callable[[Place | None], None], kind: str, scope: str | None) -> None:
        key = (kind, scope)
        while True:
            try:
                items, version = await source.listed(kind, scope, LABEL_OWNER)
                before, self._found[key] = self._found.get(key), {_place(item): _slim(item) for item in items}
                news = self._turn(key, State.KNOWN)
                for owner in [None] if news or before is None else _touched(before, self._found[key]):
                    wake(owner)
                async for change, item in source.changes(kind, scope, LABEL_OWNER, version, _WATCH_SECONDS):
                    if change == "ERROR":
                        break  # the version is too old: list again
                    if change == "DELETED":
                        self._found[key].pop(_place(item), None)
                    else:
                        self._found[key][_place(item)] = _slim(item)
                    wake((item["metadata"]["namespace"], item["metadata"]["labels"][LABEL_OWNER]))
            except (aiohttp.ClientError, OSError, ValueError) as error:
                _LOGGER.warning("watching %s failed: %s %s", kind, type(error).__name__, error)
                await asyncio.sleep(_AGAIN_SECONDS)
            except Exception as error:
                code = getattr(error, "code", None)
                if code is None:  # a bug must not end the watch, nor be hidden
                    _LOGGER.exception("watching %s failed", kind)
                elif self._refused(key, code, error):
                    wake(None)
                await asyncio.sleep(_AGAIN_SECONDS)

    def _refused(self, key: tuple[str, str | None], code: int, error: Exception) -> bool:
        """Takes in why the API server does not show a kind. Returns whether that is news."""
        if code == HTTPStatus.NOT_FOUND:
            self._found.pop(key, None)
            return self._turn(key, State.MISSING)
        if code in (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
            return self._turn(key, State.FORBIDDEN)
        _LOGGER.warning("listing %s failed: %s", key[0], error)
        return False

    def _turn(self, key: tuple[str, str | None], state: State) -> bool:
        if self._states.get(key) is state:
            return False
        _LOGGER.info("%s: %s", key[0], state)
        self._states[key] = state
        return True


def _touched(before: Mapping[Place, Raw], after: Mapping[Place, Raw]) -> set[Place]:
    """The ModelDeployments whose routes are not what they were."""
    changed = [
        raw
        for one, other in ((before, after), (after, before))
        for place, raw in one.items()
        if other.get(place) != raw
    ]
    return {(raw["metadata"]["namespace"], raw["metadata"]["labels"][LABEL_OWNER]) for raw in changed}


def _place(item: Raw) -> Place:
    return (item["metadata"]["namespace"], item["metadata"]["name"])


def _slim(item: dict[str, Any]) -> Raw:
    """Without what nobody reads, which is half of it."""
    item["metadata"].pop("managedFields", None)
    return item
