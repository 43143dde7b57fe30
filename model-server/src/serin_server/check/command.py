"""The answer of `serin-server check`."""

import hashlib
import importlib.util
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from serin_server.check.joblib_file import check_joblib
from serin_server.check.others import check_onnx, check_skops
from serin_server.check.report import Estimator, Report
from serin_server.protocol.datatypes import datatype_name
from serin_server.protocol.metadata import input_specs, output_specs, tensor_json
from serin_server.protocol.requests import Signature
from serin_server.runtime.formats import Format
from serin_server.runtime.loading import read
from serin_server.runtime.signature import SignatureCheck

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def check(
    path: Path, format_: Format, trusted: tuple[str, ...], signature: SignatureCheck | None = None
) -> dict[str, Any]:
    """The report as JSON values. Raises FatalError, also for a signature that does not vouch for the file.

    `safe` is whether loading makes nothing but what is known to be harmless, or trusted.
    """
    data = read(path)
    sha256 = hashlib.sha256(data).hexdigest()
    ends = None if signature is None else signature.verify(sha256)
    if format_ is Format.SKOPS:
        report = check_skops(data, trusted)
    elif format_ is Format.ONNX:
        report = check_onnx(data)
    else:
        report = check_joblib(data)
    found: dict[str, Any] = {
        "file": str(path),
        "sha256": sha256,
        "format": report.format,
        "safe": not report.suspects,
        "asks_for": report.suspects,
        "needs": report.needs,
        "problems": _problems(report),
    }
    if signature is not None:
        found["signature"] = "valid"
    if ends is not None:
        found["certificate"] = {"ends": ends.isoformat(), "ended": ends < datetime.now(UTC)}
    if report.estimator is not None:
        found["model"] = report.estimator.kind
        if report.estimator.described:
            found["metadata"] = _metadata(report.estimator)
    if report.notes:
        found["notes"] = report.notes
    return found


def _problems(report: Report) -> list[str]:
    """What keeps this machine from loading the file as it is."""
    problems: list[str] = []
    if report.format == Format.ONNX:
        return problems
    for name, wanted in report.needs.items():
        package = _DISTRIBUTIONS.get(name, name)
        try:
            have = version(package)
        except PackageNotFoundError:
            if importlib.util.find_spec(name) is None:  # top-level names only: nothing is imported
                problems.append(f"the module {name} is not here")
            continue
        if name == "sklearn" and any(one != have for one in wanted):
            problems.append(f"it was trained with scikit-learn {', '.join(wanted)}, this is {have}")
    return problems


def _metadata(estimator: Estimator) -> dict[str, Any]:
    classes = estimator.classes
    datatype = "FP64" if classes is None else datatype_name(np.array(classes))
    inputs = input_specs(Signature(estimator.features, estimator.names, estimator.inputs))
    outputs = output_specs(estimator.methods, datatype, None if classes is None else len(classes))
    return {"inputs": list(map(tensor_json, inputs)), "outputs": list(map(tensor_json, outputs))}
