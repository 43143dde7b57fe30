"""Checks joblib files and pickles."""

import importlib
import re
import sys
from typing import Any

from serin_server.check.inert import Inert, Reading, values_of
from serin_server.check.report import Estimator, Report
from serin_server.failures import FatalError, Reason
from serin_server.protocol.metadata import OUTPUTS, PREDICT

# Names that models are made of, and that do nothing but make an object of data. Functions of these packages are not
# among them: some run code that they are given as text.
_KNOWN = re.compile(
    r"""
    sklearn(\.\w+)*\.(_?[A-Z]\w*|__pyx_unpickle_\w+|newObj)
    | scipy\.sparse\._\w+\.\w+_(matrix|array)
    | scipy\.interpolate\._\w+\.[A-Z]\w*
    | numpy\.(_core|core)\.multiarray\.(_reconstruct|scalar)
    | numpy\.(_core|core)\.numeric\._frombuffer
    | numpy\.(ndarray|dtype|(u?int|float|complex)\d+|bool_?|str_|bytes_|object_)
    | numpy\.dtypes\.\w+DType
    | numpy\.ma\.core\.(MaskedArray|_mareconstruct)
    | numpy\.random\._pickle\.__(randomstate|generator|bit_generator)_ctor
    | numpy\.random\.(mtrand\.RandomState|_\w+\.[A-Z]\w*|bit_generator\.(SeedSequence|__pyx_unpickle_SeedSequence))
    | joblib\.numpy_pickle\.NumpyArrayWrapper
    | (builtins|__builtin__)\.(object|set|frozenset|slice|range|complex|bytearray|bytes)
    | (builtins|__builtin__)\.(list|dict|tuple|int|float|bool|str)
    | collections\.(OrderedDict|defaultdict|deque)
    | copyreg\._reconstructor | copy_reg\._reconstructor
    | _codecs\.encode
    | datetime\.(date|datetime|timedelta)
    """,
    re.VERBOSE,
)


# Parts of scikit-learn that models are not made of, and that read files, or the network.
_OUTWARD = {"datasets", "externals", "tests", "_testing", "conftest", "_build_utils"}

# What comes with Python, under the names of Python 2 as well, which old protocols write.
_PYTHON = sys.stdlib_module_names | {"__builtin__", "copy_reg"}


def check_joblib(data: bytes) -> Report:
    """What the file is, from its instructions alone. Raises FatalError when it is none."""
    reading = Reading(data)
    if not isinstance(reading.root, Inert):
        raise FatalError(Reason.NOT_A_MODEL, f"the file holds a {type(reading.root).__name__}, which is no model")
    packages = sorted({name.partition(".")[0] for name in reading.names} - _PYTHON)
    needs: dict[str, list[str]] = {name: [] for name in packages}
    if reading.sklearn_versions:
        needs["sklearn"] = sorted(reading.sklearn_versions)
    suspects = sorted(name for name in reading.names if name in reading.indirect or not _is_known(name))
    return Report("joblib", needs, suspects, _estimator(reading.root))


def _is_known(path: str) -> bool:
    """Whether a name is of data alone. Only modules of scikit-learn are imported, whatever the file names."""
    if not _KNOWN.fullmatch(path):
        return False
    if not path.startswith("sklearn."):
        return True
    # Modules also hold what they import, such as a class that opens files.
    if _OUTWARD & set(path.split(".")):
        return False
    found = _look_up(path)
    return str(getattr(found, "__module__", "")).startswith("sklearn.") or path.rpartition(".")[2].startswith("__pyx")


def _look_up(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:  # a module of another version
        return None


def _estimator(root: Inert) -> Estimator:
    steps = [root]
    if root.path == "sklearn.pipeline.Pipeline":
        listed = root.attribute("steps")
        steps = [step[1] for step in listed if isinstance(step, tuple) and isinstance(step[1], Inert)] or steps
    first, last = steps[0], steps[-1]
    features = first.attribute("n_features_in_")
    names = values_of(first.attribute("feature_names_in_"))
    return Estimator(
        kind=root.path if root is last else f"{root.path} that ends in {last.path}",
        features=features if isinstance(features, int) and 0 <= features < 2**31 else None,
        names=None if names is None else tuple(map(str, names)),
        classes=values_of(last.attribute("classes_")),
        methods=methods_of(last.path),
    )


def methods_of(path: str) -> tuple[str, ...]:
    """The outputs that a class of scikit-learn's has. Only scikit-learn is imported, whatever the file names."""
    if not re.fullmatch(r"sklearn(\.[a-z_]+)+\.\w+", path):
        return (PREDICT,)
    kind = _look_up(path)
    return (PREDICT,) if kind is None else tuple(name for name in OUTPUTS if hasattr(kind, name))
