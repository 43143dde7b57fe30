"""Something bad between those who call a port and who listens there, in the listener's own network namespace.

A rule leads there what comes from certain addresses; everybody else is served as before.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = Path(__file__).with_name("bad_proxy.py")
_PORT = 20111  # nobody listens there, unless the program does
_TABLE = "serin_chaos"
# Before kube-proxy's rules, which are at -100: the first translation of an address that applies is the only one.
_RULES = """
table ip {table} {{
  chain way {{
    type nat hook prerouting priority -110;
    ip saddr {{ {callers} }} tcp dport {called} redirect to :{port}
  }}
}}
"""


@dataclass(frozen=True)
class Way:
    """From callers, by their addresses, to a server.

    network: the words before a command that make it run in the server's network. called: the port that is called;
    listening: where the server listens.
    """

    network: Sequence[str]
    callers: Sequence[str]
    called: int
    listening: tuple[str, int]

    @contextmanager
    def late(self, seconds: float) -> Iterator[None]:
        """Every answer comes so much later."""
        host, port = self.listening
        with self._program(f"{host}:{port}", f"{seconds:g}"), self._led_away():
            yield

    @contextmanager
    def nonsense(self) -> Iterator[None]:
        """Something else answers."""
        with self._program("nonsense"), self._led_away():
            yield

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Nobody takes the connections."""
        with self._led_away():
            yield

    @contextmanager
    def _program(self, *argv: str) -> Iterator[None]:
        command = [*self.network, sys.executable, str(_PROGRAM), str(_PORT), *argv]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "here\n", f"it did not start: {command}"
            try:
                yield
            finally:
                process.kill()

    @contextmanager
    def _led_away(self) -> Iterator[None]:
        """A rule is for connections to come, so those that there are end at its beginning."""
        rules = _RULES.format(table=_TABLE, callers=", ".join(self.callers), called=self.called, port=_PORT)
        self._run("nft", "-f", "-", stdin=rules)
        try:
            for caller in self.callers:
                self._run("ss", "-K", "-Htn", f"sport = :{self.listening[1]} and dst {caller}")
            yield
        finally:
            # A pod that has gone took its network with it, and the rule.
            subprocess.run([*self.network, "nft", "delete", "table", "ip", _TABLE], check=False)

    def _run(self, *argv: str, stdin: str = "") -> None:
        subprocess.run([*self.network, *argv], input=stdin, text=True, check=True, stdout=subprocess.DEVNULL)
