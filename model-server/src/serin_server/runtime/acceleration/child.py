"""Tries a conversion in a child process, which bounds its time and memory and takes its memory with it."""

import json
import multiprocessing
import resource
import sys
import warnings
from multiprocessing.connection import Connection
from typing import Any

from serin_server.runtime.acceleration.memory import free_bytes, limit_growth

# CPU seconds of the child. CPU time and not only the clock, so that a pod with a small share of a CPU decides as its
# neighbours do: pods of which some are accelerated would compare badly.
CPU_SECONDS = 30
WALL_SECONDS = 60.0
# Of the memory that is left: a container that goes over its limit is killed as a whole.
MEMORY_SHARE = 0.75


class GaveUpError(Exception):
    """The original stays; the text says why."""


def convert_in_child(estimator: Any, forks: bool = False) -> tuple[bytes, dict[str, Any]]:
    """Return the graph and the facts of `trial.Converted`. Raises GaveUpError.

    The child is forked, so that it has the estimator without loading it again. Call it before any thread starts.
    `forks` says that this process will fork again: it does not import ONNX Runtime, which starts threads.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    # What waits in the buffers would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    child = context.Process(target=_run, args=(estimator, sender), daemon=True)
    child.start()
    sender.close()
    try:
        if not forks:
            # Needed afterwards: imported while the child works.
            import onnxruntime  # noqa: F401

        if not receiver.poll(WALL_SECONDS):
            raise GaveUpError(f"its conversion takes longer than {WALL_SECONDS:g} s")
        header = json.loads(receiver.recv_bytes())
        if "reason" in header:
            raise GaveUpError(header["reason"])
        return receiver.recv_bytes(), header
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


def _run(estimator: Any, sender: Connection) -> None:
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
        sender.send_bytes(made.graph)
        return
    sender.send_bytes(json.dumps(header).encode())
