"""Tells people: one Event and, for a decision, one JSON log line with its evidence."""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter

from serin_operator.act.client import ApiError, Client
from serin_operator.api.status import Failure, Record, Status, dump_status, rfc3339

_LOGGER = logging.getLogger("serin.decision")
_DECISIONS = Counter("serin_operator_decisions_total", "Decisions taken", ["decision", "reason"])
_WARNINGS = {"RolledBack", "Rejected"}
_HOLDS = {"NoTraffic", "CannotSee", "Paused", "Inconclusive", "CanaryNotReady"}
_MESSAGE_LIMIT = 1000  # characters that an Event's note may have
_MESSAGE_LIMIT_REASON = 128


async def announce(client: Client, resource: Mapping[str, Any], before: Status, after: Status) -> None:
    """Announces what changed from one status to the next: decisions, failures and the start of a hold.

    An Event that the API server refuses costs no more than itself; it is logged.
    """
    for record in reversed([record for record in after.history if record not in before.history]):
        _log(resource, record)
        _DECISIONS.labels(record.decision, record.reason).inc()
        kind = "Warning" if record.decision in _WARNINGS else "Normal"
        await _event(client, resource, kind, record.decision, f"{record.reason}: {record.message}")
    failure = after.last_failure
    if failure and failure != before.last_failure:
        await _event(client, resource, "Warning", failure.reason, _failure_text(failure))
    hold = _hold(after)
    if hold and (before_hold := _hold(before)) != hold and (before_hold or ("", ""))[0] != hold[0]:
        await _event(client, resource, "Normal", *hold)


def _hold(status: Status) -> tuple[str, str] | None:
    condition = status.condition("Reconciling")
    return (condition.reason, condition.message) if condition and condition.reason in _HOLDS else None


def _failure_text(failure: Failure) -> str:
    code = "" if failure.exit_code is None else f" (exit code {failure.exit_code})"
    return f"{failure.message}{code}"


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
        "reason": reason[:_MESSAGE_LIMIT_REASON],
        "action": "Reconcile",
        "note": note[:_MESSAGE_LIMIT],
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
    except ApiError as error:
        _LOGGER.warning("the API server refused an Event: %s", error)
