"""ONNX Runtime sessions, as this server runs them."""

from collections.abc import Sequence
from typing import Any

from serin_server.failures import FatalError, Reason
from serin_server.runtime.loading import summary


class Session:
    """An ONNX graph that is opened when it is first needed, so that processes can be forked before.

    ONNX Runtime starts threads when it is imported, and its sessions must not be carried over a fork.
    """

    def __init__(self, graph: bytes) -> None:
        self._graph = graph
        self._session: Any = None
        # The names of its first input and output, once it is open.
        self.input = self.output = ""

    def open(self) -> None:
        """Be ready to run; a second call changes nothing. Raises FatalError.

        One thread for the same reason as OpenMP and BLAS have one: requests side by side use the CPUs better.
        """
        if self._session is not None:
            return
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; they are raised as well, and this server's log is JSON
        try:
            session = onnxruntime.InferenceSession(self._graph, options, providers=["CPUExecutionProvider"])
        except runtime_errors.NotImplemented as error:
            raise FatalError(
                Reason.VERSION_MISMATCH, f"this image's ONNX Runtime lacks what the model needs: {error}"
            ) from error
        except Exception as error:
            raise FatalError(Reason.LOAD_FAILED, f"loading the model raised {summary(error)}") from error
        self._session = session
        self.input, self.output = session.get_inputs()[0].name, session.get_outputs()[0].name
        self._graph = b""  # as large as the model

    def run(self, outputs: Sequence[str], feeds: dict[str, Any]) -> list[Any]:
        """The arrays of the outputs named. Raises the runtime's exceptions, and FatalError when it had to open."""
        if self._session is None:
            self.open()
        found: list[Any] = self._session.run(outputs, feeds)
        return found
