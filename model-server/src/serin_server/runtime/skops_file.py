"""Loads skops files: every type in the file is either known to be safe or trusted by the resource."""

import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import skops.io
from sklearn.exceptions import InconsistentVersionWarning

from serin_server.failures import FatalError, Reason
from serin_server.runtime.loading import check_predicts, missing_module, other_version, summary

# What skops and zipfile meet bytes with that no skops wrote, also with a schema that is nested without end.
_FOREIGN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
)


def untrusted_types(data: bytes) -> list[str]:
    """The types in the file that skops does not know to be safe, sorted. Constructs nothing. Raises FatalError."""
    try:
        return sorted(skops.io.get_untrusted_types(data=data))
    except ImportError as error:
        raise FatalError(Reason.MISSING_MODULE, f"the model needs more than this image has: {error}") from error
    except _FOREIGN as error:
        raise FatalError(Reason.NOT_A_MODEL, f"the file is not one that skops can load ({summary(error)})") from error


def load_skops(data: bytes, trusted: Sequence[str]) -> Any:
    """Return the object in the file, which has a predict method. Raises FatalError.

    Trust comes from the resource and never from the file, so a file cannot name what it wants to run.
    """
    refused = [name for name in untrusted_types(data) if name not in trusted]
    if refused:
        raise FatalError(
            Reason.UNTRUSTED_TYPES,
            f"the file asks for types that nobody trusts: {', '.join(refused)}; "
            "add them to model.trustedTypes if you know what they do",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            model = skops.io.loads(data, trusted=list(trusted))
    except InconsistentVersionWarning as warning:
        raise other_version(f"{warning.estimator_name} of scikit-learn {warning.original_sklearn_version}") from None
    except ModuleNotFoundError as error:
        raise missing_module(error) from error
    except (Exception, SystemExit) as error:
        raise FatalError(Reason.LOAD_FAILED, f"loading the model raised {summary(error)}") from error
    return check_predicts(model)
