"""A bad way to a server: `python bad_proxy.py PORT HOST:PORT SECONDS` or `python bad_proxy.py PORT nonsense`.

With the first, every piece of an answer comes so many seconds after the server has sent it. With the second, no server
is asked, and what is answered over HTTP is nothing that a metrics source says. A line is printed once it listens. It
needs the standard library alone, as it runs in the network of a node or of a pod.
"""

import asyncio
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle

_PIECE = 1 << 16
_NONSENSE = cycle(
    [
        b"<html><body>It works!</body></html>",
        b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "many"]}]}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": []}}',
        b"process_start_time_seconds 1.0\nserin_requests_total{revision=",
        b"process_start_time_seconds 1.0\n",
        b"process_start_time_seconds NaN\nserin_requests_total -1.0\n",
        bytes(range(256)),
        b"",
    ]
)


class Nonsense(BaseHTTPRequestHandler):
    """Answers whatever is asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = next(_NONSENSE)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


async def serve_late(port: int, host: str, upstream: int, seconds: float) -> None:
    """Pass requests on at once, and answers late."""

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection(host, upstream)
        except OSError:
            to_client.close()
            return
        await asyncio.gather(pass_on(client, to_server, 0.0), pass_on(server, to_client, seconds))

    async with await asyncio.start_server(connected, port=port) as listener:
        print("here", flush=True)
        await listener.serve_forever()


async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, seconds: float) -> None:
    """Everything that comes, each piece so many seconds later; what comes in order is written in order."""
    loop = asyncio.get_running_loop()
    later: Callable[..., object] = loop.call_soon if not seconds else lambda *call: loop.call_later(seconds, *call)
    try:
        while piece := await source.read(_PIECE):
            later(target.write, piece)
    except OSError:
        pass  # a connection that breaks on one side ends on the other
    later(target.close)


def main() -> None:
    """Serve until it is ended."""
    port, server, *seconds = sys.argv[1:]
    if seconds:
        host, _, upstream = server.rpartition(":")
        asyncio.run(serve_late(int(port), host, int(upstream), float(seconds[0])))
    else:
        listener = ThreadingHTTPServer(("", int(port)), Nonsense)
        print("here", flush=True)
        listener.serve_forever()


if __name__ == "__main__":
    main()
