"""Tells people: one Event and, for a decision, one JSON log line with its evidence."""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
from prometheus_client import Counter

from serin_operator.act.client import ApiError, Client
from serin_operator.api.status import Failure, Record, Remark, Status, dump_status, rfc3339
from serin_operator.build.owner import Key
from serin_operator.decide import drift_watch

_LOGGER = logging.getLogger("serin.decision")
_DECISIONS = Counter("serin_operator_decisions_total", "Decisions taken", ["decision"])
_WARNINGS = {"RolledBack", "Rejected", "Ignored", "ExposureSpent", "PreviousNotReady", "NotMeasurable", "TakingDown"}
_HOLDS = {
    *("NoTraffic", "CannotSee", "Paused", "AwaitingPromotion", "Inconclusive", "CanaryNotReady", "ExposureSpent"),
    *("PreviousNotReady", "NotMeasurable", "TakingDown"),
}
_NOTES = {"Overdispersed", "AnswersDiffer"}  # remarks that ask nobody to do anything
_NOTE_BYTES = 1024
_REASON_LIMIT = 128


def log_decisions(resource: Mapping[str, Any], before: Status, after: Status) -> None:
    """One JSON log line for each decision that is new, oldest first."""
    for record in _new_records(before, after):
        _log(resource, record)
        _DECISIONS.labels(record.decision).inc()


async def announce(client: Client, resource: Mapping[str, Any], before: Status, after: Status) -> None:
    """Posts an Event for each new decision, a new failure, a new remark on the evidence and the start of a hold.

    An Event that does not get through costs no more than itself; it is logged.
    """
    for record in _new_records(before, after):
        kind = "Warning" if record.decision in _WARNINGS else "Normal"
        await _event(client, resource, kind, record.decision, f"{record.reason}: {record.message}")
    failure = after.last_failure
    if failure and failure != before.last_failure:
        await _event(client, resource, "Warning", failure.reason, _failure_text(failure))
    known = _remarks(before)
    for remark in (remark for key, remark in _remarks(after).items() if key not in known):
        await _event(
            client, resource, "Normal" if remark.reason in _NOTES else "Warning", remark.reason, remark.message
        )
    drifted = after.condition(drift_watch.CONDITION)
    if drifted and drifted.status != _drifted(before) and "True" in (drifted.status, _drifted(before)):
        kind = "Warning" if drifted.status == "True" else "Normal"
        await _event(client, resource, kind, drifted.reason, drifted.message)
    hold = _hold(after)
    if hold and hold[0] != (_hold(before) or ("",))[0]:
        await _event(client, resource, "Warning" if hold[0] in _WARNINGS else "Normal", *hold)


async def announce_mended(client: Client, resource: Mapping[str, Any], mended: Iterable[Key]) -> None:
    """Posts an Event for each route that somebody else had changed and that is as it was again."""
    for kind, _, name in mended:
        note = f"{kind} {name} was changed by somebody else, and is put right: the ModelDeployment says what is routed."
        await _event(client, resource, "Warning", "RoutePutRight", note)


async def announce_failing_passes(client: Client, resource: Mapping[str, Any], note: str) -> None:
    """Posts an Event of what keeps passes from coming to their end."""
    await _event(client, resource, "Warning", "PassesFail", note)


def _new_records(before: Status, after: Status) -> list[Record]:
    return [record for record in reversed(after.history) if record not in before.history]


def _remarks(status: Status) -> dict[tuple[str, str], Remark]:
    """What is remarked on the rollout under way, by canary and reason."""
    if status.rollout is None or status.canary is None:
        return {}
    return {(status.canary.revision, remark.reason): remark for remark in status.rollout.remarks}


def _hold(status: Status) -> tuple[str, str] | None:
    condition = status.condition("Reconciling") or (status.condition("Stalled") if status.watch else None)
    return (condition.reason, condition.message) if condition and condition.reason in _HOLDS else None


def _drifted(status: Status) -> str:
    condition = status.condition(drift_watch.CONDITION)
    return condition.status if condition else ""


def _failure_text(failure: Failure) -> str:
    code = f"exit code {failure.exit_code}"
    return failure.message if failure.exit_code is None or code in failure.message else f"{failure.message} ({code})"


def _log(resource: Mapping[str, Any], record: Record) -> None:
    metadata = resource["metadata"]
    (dumped,) = dump_status(Status(history=(record,)))["history"]
    line = {"namespace": metadata["namespace"], "modelDeployment": metadata["name"], **dumped}
    _LOGGER.info(json.dumps(line, sort_keys=True))


async def _event(client: Client, resource: Mapping[str, Any], kind: str, reason: str, note: str) -> None:
    metadata = resource["metadata"]
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}-", "namespace": metadata["namespace"]},
        "eventTime": rfc3339(time.time()),
        "reportingController": "serin.dev/operator",
        "reportingInstance": "serin-operator",
        "type": kind,
        "reason": reason[:_REASON_LIMIT],
        "action": "Reconcile",
        "note": note.encode()[:_NOTE_BYTES].decode(errors="ignore"),
        "regarding": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
    }
    try:
        await client.create(body)
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        _LOGGER.warning("an Event was not posted: %s %s", type(error).__name__, error)
