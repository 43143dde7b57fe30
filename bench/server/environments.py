"""The peers' virtual environments, each made once, in the user's cache."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import sklearn

_CACHE = Path.home() / ".cache" / "serin"
# What makes the model files, so that all servers read the same ones.
_MODELS = (
    f"scikit-learn=={sklearn.__version__}",
    f"joblib=={joblib.__version__}",
    f"numpy=={np.__version__}",
)


@dataclass(frozen=True)
class Peer:
    """A peer's packages from PyPI."""

    name: str
    version: str
    packages: tuple[str, ...]

    def install(self) -> Path:
        """Return the Python of an environment that has them. Raises CalledProcessError."""
        wanted = "\n".join((*self.packages, *_MODELS))
        place = _CACHE / f"{self.name.lower()}-{self.version}"
        python, marker = place / "bin" / "python", place / ".installed"
        if not marker.exists() or marker.read_text() != wanted:
            print(f"Installing {self.name} {self.version} into {place}, once; this takes a minute or two.", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
            subprocess.run([python, "-m", "pip", "install", "--progress-bar=off", *wanted.splitlines()], check=True)
            marker.write_text(wanted)
        return python


# MLServer's parallel workers do not start under uvloop 0.22, which makes no event loop that nobody asked for.
MLSERVER = Peer("MLServer", "1.7.1", ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22"))
KSERVE = Peer("KServe", "0.21.0", ("kserve==0.21.0",))
PEERS = (MLSERVER, KSERVE)
