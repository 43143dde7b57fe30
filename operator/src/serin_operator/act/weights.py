"""Edits weights in routes that users own, and nothing else in them."""

from collections.abc import Mapping
from typing import Any

from serin_operator.act.client import Client
from serin_operator.build.own_route import UnusableError, Weights, edits
from serin_operator.build.owner import Key


class Weigher:
    """Remembers each route as its own last edit left it, since the watch cache may lag behind that."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._left: dict[Key, tuple[Mapping[str, int], Mapping[str, Any]]] = {}

    async def give(self, wanted: Weights, raw: Mapping[str, Any]) -> bool:
        """Edits the route until it has these weights. Returns whether somebody else had changed them.

        One that can not be used is left alone: whoever reads routes tells why. Raises ApiError 422 when somebody edits
        the route at the same time.
        """
        given, left = self._left.get(wanted.key, ({}, raw))
        newest = max(raw, left, key=_version)
        try:
            patch = edits(wanted, newest)
        except UnusableError:
            return False
        if patch:
            newest = await self._client.edit(*wanted.key, patch)
        self._left[wanted.key] = (wanted.of, newest)
        return bool(patch) and given == wanted.of

    def forget_all(self) -> None:
        """Drops what is remembered: another operator may write from now on."""
        self._left.clear()


def _version(raw: Mapping[str, Any]) -> int:
    return int(raw["metadata"]["resourceVersion"])
