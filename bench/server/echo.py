"""The floor: the server's own web stack with a route that reads the body and answers a constant.

python -m bench.server.echo PORT
"""

import sys

from serin_server import logs
from serin_server.web.app import Lifecycle
from serin_server.web.connection import Handler
from serin_server.web.limits import Limits
from serin_server.web.messages import Answer, Request
from serin_server.web.server import Server, listen

_LIMIT = 8 * 1024 * 1024
_ANSWER = Answer(200, b"{}")


class Echo:
    """Stands in for the application."""

    def __init__(self) -> None:
        self.lifecycle = Lifecycle()

    def route(self, _method: bytes, _target: bytes) -> Handler:
        return _answer


def _answer(request: Request) -> Answer:
    request.read(_LIMIT)
    return _ANSWER


def main() -> int:
    logs.configure()
    Server(Echo(), Limits(_LIMIT), drain_seconds=0.1).run(listen("127.0.0.1", int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
