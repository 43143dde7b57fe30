"""Reads model files, and loads joblib files from the very bytes whose digest was checked."""

import hashlib
import lzma
import pickle
import traceback
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

from serin_server.failures import FatalError, Reason


def read(path: Path) -> bytes:
    """Return the file's bytes. Raises FatalError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FatalError(Reason.NOT_FOUND, f"the model file {path} cannot be read: {error.strerror}") from error


def read_checked(path: Path, sha256: str) -> bytes:
    """Return the file's bytes. Raises FatalError unless they have the SHA-256 (lower-case hex)."""
    data = read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise FatalError(
            Reason.DIGEST_MISMATCH_AT_LOAD,
            f"{path} holds {len(data)} bytes with SHA-256 {found}, expected {sha256}",
        )
    return data


def load(data: bytes) -> Any:
    """Unpickle a joblib file and return an object with a predict method. Raises FatalError.

    This runs code from the file: only bytes with a pinned digest get here. Code that ends the process
    outright ends this one, and the pod's restarts show it.
    """
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            model = joblib.load(BytesIO(data))
    except InconsistentVersionWarning as warning:
        raise other_version(f"{warning.estimator_name} of scikit-learn {warning.original_sklearn_version}") from None
    except ModuleNotFoundError as error:
        raise missing_module(error) from error
    except (Exception, SystemExit) as error:
        if _is_not_a_pickle(error):
            raise FatalError(
                Reason.NOT_A_MODEL, f"the file is not one that joblib can load ({summary(error)})"
            ) from error
        raise FatalError(Reason.LOAD_FAILED, f"loading the model raised {summary(error)}") from error
    return check_predicts(model)


def check_predicts(model: Any) -> Any:
    """Return the object. Raises FatalError when it has no predict method."""
    if isinstance(model, type) or not callable(getattr(model, "predict", None)):
        raise FatalError(Reason.NOT_A_MODEL, f"the file holds a {type(model).__name__} without a predict method")
    return model


def missing_module(error: ModuleNotFoundError) -> FatalError:
    """The failure of a model whose modules are not all there: another scikit-learn, or a package that is missing."""
    name = error.name or str(error)
    if name.partition(".")[0] == "sklearn":
        return other_version(f"a scikit-learn that has {name}")
    return FatalError(
        Reason.MISSING_MODULE, f"the model needs the Python module {name!r}, which this image does not have"
    )


def other_version(trained_with: str) -> FatalError:
    """The failure of a model that another scikit-learn wrote; predictions could differ without a word."""
    import sklearn

    return FatalError(
        Reason.VERSION_MISMATCH,
        f"the model was trained with {trained_with}, this image has scikit-learn {sklearn.__version__}; "
        "train it again with this version, or use an image with the other one",
    )


def _is_not_a_pickle(error: BaseException) -> bool:
    """Whether the bytes are no pickle, as opposed to a pickle of a model that fails.

    Unpicklers meet foreign bytes with many exceptions. Those of the last group count only when the unpickler
    itself raised them, not the model's code.
    """
    if isinstance(error, pickle.UnpicklingError | EOFError | zlib.error | lzma.LZMAError):
        return True
    if isinstance(error, OSError):
        return error.errno is None  # so gzip and bzip2 complain about data; the system's errors have a number
    if not isinstance(error, KeyError | IndexError | ValueError | OverflowError):
        return False
    import joblib

    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return innermost == pickle.__file__ or Path(joblib.__file__).parent in Path(innermost).parents


def summary(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}"
