"""The model's own predict, as the server would call it for one request alone.

    python -m bench.server.predict MODEL BODY_FILE

Prints the median of the microseconds that a call takes.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import joblib
import numpy as np

from serin_server.runtime.batcher import prepare_thread

_SECONDS = 0.5


def main(model_path: Path, body_path: Path) -> None:
    prepare_thread()
    model = joblib.load(model_path)
    matrix = np.array(json.loads(body_path.read_text())["inputs"][0]["data"])
    took = []
    end = time.perf_counter() + _SECONDS
    while (started := time.perf_counter()) < end:
        model.predict(matrix)
        took.append(time.perf_counter() - started)
    print(1e6 * statistics.median(took))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
