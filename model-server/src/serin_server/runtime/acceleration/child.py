"""Tries a conversion in a child process, which bounds its time and memory and takes its memory with it."""

import json
import multiprocessing
import pickle
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from serin_server.runtime.acceleration.memory import free_bytes, limit_growth
from serin_server.runtime.acceleration.scout import Facts, facts_of

# CPU seconds of the child. CPU time and not only the clock, so that a pod with a small share of a CPU decides as its
# neighbours do: pods of which some are accelerated would compare badly.
CPU_SECONDS = 30
WALL_SECONDS = 60.0
# Of the memory that is left: a container that goes over its limit is killed as a whole.
MEMORY_SHARE = 0.75


_LOADED = b"loaded"


class GaveUpError(Exception):
    """The original stays; the text says why. `loaded` is whether it could be loaded at all, where that was tried."""

    def __init__(self, reason: str, loaded: bool = True) -> None:
        super().__init__(reason)
        self.loaded = loaded


def convert_in_child(estimator: Any, forks: bool = False) -> tuple[bytes, dict[str, Any]]:
    """Return the graph and the facts of `trial.Converted`. Raises GaveUpError.

    The child is forked, so that it has the estimator without loading it again. Call it before any thread starts.
    `forks` says that this process will fork again: it does not import ONNX Runtime, which starts threads.
    """
    with _child(_run, estimator) as receiver:
        if not forks:
            _import_runtime()
        header = _header(receiver)
        return receiver.recv_bytes(), header


def load_and_convert_in_child(load: Callable[[], Any]) -> tuple[bytes, dict[str, Any], Facts]:
    """The same for an estimator that only the child loads, with what else serving must know. Raises GaveUpError.

    This process may fork again when the child did not load it, and not otherwise.
    """
    with _child(_load_and_run, load) as receiver:
        try:
            word = receiver.recv_bytes()
        except EOFError:  # loading it ended the child
            word = b""
        if word != _LOADED:
            raise GaveUpError("it cannot be loaded", loaded=False)
        _import_runtime()
        header = _header(receiver)
        # Of a process that ran what this one would run itself otherwise.
        facts: Facts = pickle.loads(receiver.recv_bytes())  # noqa: S301
        return receiver.recv_bytes(), header, facts


def _import_runtime() -> None:
    """Needed afterwards: imported while the child works."""
    import onnxruntime  # noqa: F401


def _header(receiver: Connection) -> dict[str, Any]:
    if not receiver.poll(WALL_SECONDS):
        raise GaveUpError(f"its conversion takes longer than {WALL_SECONDS:g} s")
    header: dict[str, Any] = json.loads(receiver.recv_bytes())
    if "reason" in header:
        raise GaveUpError(header["reason"])
    return header


@contextmanager
def _child(target: Callable[[Any, Connection], None], argument: Any) -> Iterator[Connection]:
    """A forked process that does this, and where it tells of it. Raises GaveUpError when it ends without a word."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    # What waits in the buffers would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    child = context.Process(target=target, args=(argument, sender), daemon=True)
    child.start()
    sender.close()
    try:
        yield receiver
    except EOFError:
        child.join()
        raise GaveUpError(
            f"its conversion ended with exit code {child.exitcode}, as when it takes more than {CPU_SECONDS} s of CPU "
            "or more memory than is left"
        ) from None
    finally:
        child.kill()
        child.join()
        receiver.close()


def _load_and_run(load: Callable[[], Any], sender: Connection) -> None:
    try:
        estimator = load()
        facts = pickle.dumps(facts_of(estimator))
    except BaseException:  # noqa: BLE001 - whatever a file does: the server finds out itself, and says it
        sender.send_bytes(b"")
        return
    sender.send_bytes(_LOADED)
    _run(estimator, sender, facts)


def _run(estimator: Any, sender: Connection, facts: bytes | None = None) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    room = int(free_bytes() * MEMORY_SHARE)
    limit_growth(room)
    warnings.simplefilter("ignore")
    try:
        from serin_server.runtime.acceleration.trial import try_to_convert
        from serin_server.runtime.acceleration.unsupported import UnsupportedError
    except (ImportError, MemoryError) as error:
        sender.send_bytes(json.dumps({"reason": f"it cannot be converted here: {error!r}"}).encode())
        return
    try:
        made = try_to_convert(estimator)
    except UnsupportedError as error:
        header: dict[str, Any] = {"reason": str(error)}
    except MemoryError:
        header = {"reason": f"its conversion takes more than the {room // 2**20} MiB of memory that it may have"}
    except Exception as error:  # noqa: BLE001 - whatever a converter raises, the original serves; it is told and logged
        header = {"reason": f"its conversion raised {type(error).__name__}: {str(error)[:200]}"}
    else:
        header = {
            "kept_steps": made.kept_steps,
            "exact": made.exact,
            "singles": made.singles,
            "rows": made.rows,
            "seconds": made.seconds,
            "original_seconds": made.original_seconds,
        }
        sender.send_bytes(json.dumps(header).encode())
        if facts is not None:
            sender.send_bytes(facts)
        sender.send_bytes(made.graph)
        return
    sender.send_bytes(json.dumps(header).encode())
