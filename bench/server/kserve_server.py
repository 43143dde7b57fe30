"""KServe's server for scikit-learn, which is not on PyPI, on KServe's own model server, which is.

    python kserve_server.py --model_dir DIRECTORY --model_name m --http_port 8080 ...

Runs alone, in KServe's environment. It loads and predicts as `sklearnserver` of KServe's repository does: joblib, then
`predict` on the event loop, with KServe's own functions for input and output. All options are KServe's.
"""

import argparse
from pathlib import Path
from typing import Any

import joblib
import kserve
from grpc import aio
from kserve import model_server
from kserve.protocol.rest import server as rest_server
from kserve.utils.utils import get_predict_input, get_predict_response

LOOPBACK = "127.0.0.1"


class SKLearnModel(kserve.Model):  # type: ignore[misc]
    """One joblib file."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self._directory = directory

    def load(self) -> bool:
        self._model = joblib.load(next(self._directory.glob("*.joblib")))
        self.ready = True
        return True

    def predict(self, payload: Any, headers: Any = None) -> Any:
        try:
            result = self._model.predict(get_predict_input(payload))
            return get_predict_response(payload, result, self.name)
        except Exception as error:
            raise kserve.errors.InferenceError(str(error)) from error


class _LoopbackConfig(rest_server.uvicorn.Config):  # type: ignore[misc]
    """KServe always listens on all addresses; a benchmark has no business there."""

    def __init__(self, app: Any, host: str, **options: Any) -> None:
        super().__init__(app, LOOPBACK, **options)


class _LoopbackServer(aio._server.Server):  # type: ignore[misc]
    def add_insecure_port(self, address: str) -> int:
        return int(super().add_insecure_port(address.replace("[::]", LOOPBACK)))


def main() -> None:
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model_dir", type=Path, required=True)
    options, _ = parser.parse_known_args()
    rest_server.uvicorn.Config = _LoopbackConfig
    aio._server.Server = _LoopbackServer
    model = SKLearnModel(options.model_name, options.model_dir)
    model.load()
    kserve.ModelServer().start([model])


if __name__ == "__main__":
    main()
