"""The port of routers, its reading half: what each kind of router is seen to serve.

`build.routing` has the other half, which writes routes.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from serin_operator.api.spec import RouterType
from serin_operator.decide.observed import Router
from serin_operator.observe.pods import Pod
from serin_operator.observe.routers import ask_routers


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a router can be seen: the pods of one ModelDeployment, and a session to ask them with."""

    session: aiohttp.ClientSession
    pods: Sequence[Pod]


async def verify(kind: RouterType, sight: Sight) -> Router:
    """What the routers of this kind really do now. What can not be seen is `problem`, and counts as not served."""
    return await OBSERVERS[kind](sight)


async def _embedded(sight: Sight) -> Router:
    return await ask_routers(sight.session, sight.pods)


OBSERVERS: Mapping[RouterType, Callable[[Sight], Awaitable[Router]]] = {RouterType.EMBEDDED: _embedded}
