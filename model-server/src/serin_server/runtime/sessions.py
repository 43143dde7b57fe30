"""ONNX Runtime sessions, as this server runs them."""

from typing import Any

import onnxruntime


def open_session(data: bytes) -> Any:
    """Return an InferenceSession on one thread of the CPU. Raises the runtime's exceptions.

    One thread for the same reason as OpenMP and BLAS have one: requests side by side use the CPUs better.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well, and this server's log is JSON
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
