"""The log itself: the event loop hands over rows, a thread of its own writes them."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import orjson
from prometheus_client import CollectorRegistry, Counter, generate_latest

from serin_server.monitor.attempts import Attempt
from serin_server.payload_log.files import BoundedFiles
from serin_server.payload_log.settings import PayloadLogSettings, check_features, in_sample, kept
from serin_server.protocol.datatypes import Array
from serin_server.protocol.metadata import PREDICTION_ID
from serin_server.protocol.requests import Signature
from serin_server.protocol.rows import Columns, Rows
from serin_server.protocol.tensors import InferResponse
from serin_server.serving.inquiry import Inquiry

log = logging.getLogger(__name__)

# What may wait for the writer, in bytes of values; more is dropped.
MOST_PENDING = 16 * 1024 * 1024
# Rows are gathered for so long before they are written.
_GATHER_SECONDS = 0.2
# Encoded between two writes. A write lets the event loop's thread run, which would else wait for up to 5 ms.
_SLICE = 32
_RECORD_BYTES = 200  # about what a record takes beside its values


@dataclass(frozen=True, slots=True)
class _Rows:
    """Sampled rows of one request: `inputs` are [rows, features] or an array a feature, `values` begin with [rows]."""

    time: float
    attempt: Attempt
    ids: Sequence[str]
    names: Sequence[str]
    inputs: Array | Sequence[Array]
    values: Array

    def part(self, start: int, end: int) -> Iterator[tuple[str, Sequence[object], object]]:
        """Id, inputs and prediction of each of these rows."""
        ids, values = self.ids[start:end], self.values[start:end].tolist()
        if isinstance(self.inputs, np.ndarray):
            return zip(ids, self.inputs[start:end].tolist(), values, strict=True)
        columns = [array[start:end].tolist() for array in self.inputs]
        return zip(ids, zip(*columns, strict=True) if columns else [()] * len(ids), values, strict=True)


@dataclass(frozen=True, slots=True)
class _Label:
    time: float
    prediction_id: str
    label: object


class PayloadLog:
    """Takes records on one thread, the event loop's. The writer's thread begins with the first of them.

    Processes that are forked before then each have a log of their own, with its own files and counters.
    """

    def __init__(
        self,
        settings: PayloadLogSettings,
        signature: Signature,
        *,
        model: str,
        version: str,
        revision: str,
    ) -> None:
        """Raises FatalError when the settings name a feature that the model does not have."""
        check_features(settings, signature)
        self._settings = settings
        self._names = signature.names
        self._kept: dict[Sequence[str], list[int]] = {}
        self._same = {"model": model, "version": version, "revision": revision, "sample": settings.sample}
        self._registry = CollectorRegistry()
        self._written = Counter(
            "serin_payload_log_records",
            "Records written to the payload log: predicted rows and labels.",
            ["model", "revision"],
            registry=self._registry,
        ).labels(model, revision)
        self._dropped = Counter(
            "serin_payload_log_dropped",
            "Records that the payload log lost: the writer was behind, or the volume was full or failed.",
            ["model", "revision"],
            registry=self._registry,
        ).labels(model, revision)
        self._files = BoundedFiles(settings.directory, settings.max_bytes)
        self._pending: deque[_Rows | _Label] = deque()
        self._pending_bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = ""

    def answered(self, inquiry: Inquiry, response: InferResponse) -> None:
        """Log those rows of an answer that have ids in the sample."""
        ids = next((output.array for output in response.outputs if output.name == PREDICTION_ID), None)
        if ids is None:
            return
        share = self._settings.sample
        chosen = [row for row, prediction_id in enumerate(ids) if in_sample(prediction_id, share)]
        if not chosen:
            return
        names, inputs = self._inputs(inquiry.rows, chosen)
        values = inquiry.predictions.values[chosen]
        rows = _Rows(time.time(), inquiry.attempt, [ids[row] for row in chosen], names, inputs, values)
        size = _size(inputs) if isinstance(inputs, np.ndarray) else sum(map(_size, inputs))
        self._offer(rows, len(chosen), size + _size(values))

    def labelled(self, prediction_id: str, label: object, now: float) -> None:
        """Log a label that was counted at `now`, if its prediction is in the sample."""
        if in_sample(prediction_id, self._settings.sample):
            self._offer(_Label(now, prediction_id, label), 1, len(label) if isinstance(label, str) else 0)

    def render(self) -> str:
        """The log's own metrics, in Prometheus' text format."""
        return generate_latest(self._registry).decode()

    def close(self, seconds: float) -> None:
        """Write what is left and end the file, in at most so many seconds. Nothing may be logged after it."""
        if self._thread is None:
            return
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.error("the payload log could not be written to its end", extra={"fields": {"seconds": seconds}})

    def _inputs(self, rows: Rows, chosen: Sequence[int]) -> tuple[Sequence[str], Array | Sequence[Array]]:
        """Copies of the features that are kept: what is left out does not wait in memory."""
        if isinstance(rows, Columns):
            names: Sequence[str] = tuple(rows.arrays)
        else:
            names = self._names or tuple(map(str, range(rows.shape[1] if rows.ndim == 2 else 1)))
        columns = self._kept.get(names)
        if columns is None:
            columns = self._kept[names] = kept(self._settings, names)
        told = names if len(columns) == len(names) else [names[column] for column in columns]
        if isinstance(rows, Columns):
            return told, [rows.arrays[name][chosen] for name in told]
        if rows.ndim == 2:
            return told, rows[np.ix_(chosen, columns)]
        return told, [rows[chosen]] * len(columns)

    def _offer(self, item: _Rows | _Label, records: int, size: int) -> None:
        size += records * _RECORD_BYTES
        with self._lock:
            fits = self._pending_bytes + size <= MOST_PENDING
            if fits:
                self._pending.append(item)
                self._pending_bytes += size
        if not fits:
            self._dropped.inc(records)
            return
        if self._thread is None:  # not before: a process that is about to fork must not have it
            self._thread = threading.Thread(target=self._write_all, name="payload log", daemon=True)
            self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    # --- the writer's thread -------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_GATHER_SECONDS)
            self._wake.clear()
            self._write(self._take())
        self._write(self._take())
        try:
            self._files.close()
        except OSError as error:
            self._tell(error)

    def _take(self) -> Sequence[_Rows | _Label]:
        with self._lock:
            taken, self._pending = self._pending, deque()
            self._pending_bytes = 0
        return taken

    def _write(self, items: Sequence[_Rows | _Label]) -> None:
        records = (record for item in items for record in self._records(item))
        while chunk := list(islice(records, _SLICE)):
            lines = [line for record in chunk if (line := self._line(record)) is not None]
            try:
                self._files.write(b"".join(lines))
            except OSError as error:
                self._tell(error)
                self._dropped.inc(len(lines))
            else:
                self._told = ""
                self._written.inc(len(lines))

    def _records(self, item: _Rows | _Label) -> Iterator[dict[str, object]]:
        when = round(item.time, 3)
        if isinstance(item, _Label):
            yield {"prediction_id": item.prediction_id, "time": when, "label": item.label}
            return
        same = {"time": when, **self._same, "attempt": item.attempt}
        for start in range(0, len(item.ids), _SLICE):  # many rows at once would keep the event loop waiting
            for prediction_id, row, value in item.part(start, start + _SLICE):
                inputs = dict(zip(item.names, row, strict=True))
                yield {"prediction_id": prediction_id, **same, "inputs": inputs, "prediction": value}

    def _line(self, record: dict[str, object]) -> bytes | None:
        try:
            return orjson.dumps(record, default=_as_json, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError as error:  # such as an integer of more than 64 bits
            self._tell(error)
            self._dropped.inc()
            return None

    def _tell(self, error: Exception) -> None:
        """Log a problem once, until it is over or another one comes."""
        problem = f"{type(error).__name__}: {error}"
        if problem != self._told:
            self._told = problem
            log.error("records of the payload log are lost", extra={"fields": {"problem": problem}})


def _size(array: Array) -> int:
    """About the bytes that an array keeps in memory."""
    texts = sum(len(value) for value in array.flat if isinstance(value, str | bytes)) if array.dtype == object else 0
    return array.nbytes + texts


def _as_json(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
