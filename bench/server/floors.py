"""What a request costs at least, in one process: the model's own call, and parse, predict and encode around it.

    python -m bench.server.floors MODEL_FILE

Reads names of files with JSON requests, a line each, and answers each with a line of JSON, medians in microseconds:
`sklearn` is the file's own predict, `served` the call that the server makes (accelerated where it is), `whole` orjson's
parse, numpy's array, that call and orjson's encoding of its values.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson

from bench.server import processes
from bench.server.targets import ROOT, SOURCE, environment
from serin_server.runtime.acceleration import Accelerate, accelerate
from serin_server.runtime.batcher import prepare_thread

_SECONDS = 0.3
_FEWEST = 5


Measure = Callable[[Path], dict[str, float]]


@contextlib.contextmanager
def floors(model: Path) -> Iterator[Measure]:
    """A process on the servers' core that measures the floors of a request whenever it is called."""
    command = [sys.executable, "-m", "bench.server.floors", str(model)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=ROOT,
        env=environment(PYTHONPATH=str(SOURCE)),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        given, taken = process.stdin, process.stdout

        def measure(request: Path) -> dict[str, float]:
            print(request, file=given)
            found: dict[str, float] = json.loads(taken.readline())
            return found

        yield measure
        given.close()


def main(model_path: Path) -> None:
    processes.pin(os.getpid(), processes.SERVER_CORES)
    estimator = joblib.load(model_path)
    served = accelerate(estimator, Accelerate.AUTO).estimator
    prepare_thread()
    for line in sys.stdin:
        body = Path(line.strip()).read_bytes().partition(b"\r\n\r\n")[2]
        print(json.dumps(_floors(estimator, served, body)), flush=True)


def _floors(estimator: Any, served: Any, body: bytes) -> dict[str, float]:
    tensor = orjson.loads(body)["inputs"][0]
    matrix = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])

    def whole() -> bytes:
        tensor = orjson.loads(body)["inputs"][0]
        values = served.predict(np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"]))
        output = {"name": "predict", "shape": values.shape, "datatype": "INT64", "data": values}
        answer = {"model_name": "m", "model_version": "v1", "outputs": [output]}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)

    calls: dict[str, Callable[[], object]] = {
        "sklearn": lambda: estimator.predict(matrix),
        "served": lambda: served.predict(matrix),
        "whole": whole,
    }
    return {name: _median(call) for name, call in calls.items()}


def _median(call: Callable[[], object]) -> float:
    """Microseconds of a call."""
    call()
    took: list[float] = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(took) < _FEWEST:
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return 1e6 * statistics.median(took)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
