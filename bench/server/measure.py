"""One case, all servers in turns: which settings of the peers are best for it, then rounds of both loads."""

import http.client
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np

from bench.server import processes, wire
from bench.server.cases import Case, Wire
from bench.server.floors import Measure
from bench.server.targets import ROOT, SOURCE, Target, environment

_TIMEOUT_SECONDS = 5.0
_PREFIX_BYTES = 5  # of a gRPC message in its frame
_PATIENCE_SECONDS = 90

FLOORS = "floors"  # stands for a server in the record of the calls in one process

Record = dict[str, Any]
T = TypeVar("T")


class LoadError(RuntimeError):
    """A server did not answer under load, or went away."""


@dataclass(frozen=True)
class Plan:
    """How much: rounds, seconds of the load that saturates and of that at the fixed rate, connections of each.

    `trial` is the share of these times for which a setting is tried.
    """

    rounds: int
    full_seconds: float
    rate_seconds: float
    connections: int
    trial: float


@dataclass(frozen=True)
class Rival:
    """A line of the tables, and the servers that may stand for it: for each figure the one that is best there."""

    name: str
    targets: Sequence[Target]
    is_peer: bool = False


@dataclass(frozen=True)
class _Chosen:
    rival: Rival
    fastest: Target
    steadiest: Target


def measure(case: Case, rivals: Sequence[Rival], floor: Measure, plan: Plan, directory: Path) -> list[Record]:
    """A record for each rival that offers what the case asks for: medians over rounds in which all have their turn.

    Before them the floors, if the case has some. A peer that fails under load is left out of the case, and stderr says
    why. Raises LoadError when another server does.
    """
    request = directory / f"{case.key}.request"
    request.write_bytes(wire.request(case.wire, case.model.rows(case.rows)))
    chosen = []
    for rival in rivals:
        able = [target for target in rival.targets if offers(target, case, request.read_bytes())]
        if able:
            chosen += _attempt(rival, _choose, rival, able, case, request, plan)
    rounds: list[list[Record]] = [[] for _ in chosen]
    floors = []
    for _ in range(plan.rounds):
        if case.wire is Wire.JSON:
            floors.append(floor(request))
        for entry, found in zip(chosen, rounds, strict=True):
            found += _attempt(entry.rival, _round, entry, case, request, plan)
    whole = [(entry, found) for entry, found in zip(chosen, rounds, strict=True) if len(found) == plan.rounds]
    records = [_summary(case, entry, found) for entry, found in whole]
    return [_of(case) | {"server": FLOORS, **_medians(floors)}, *records] if floors else records


def _attempt(rival: Rival, do: Callable[..., T], *arguments: object) -> list[T]:
    """What it returns, or nothing when a peer fails under load. Raises LoadError when it is no peer."""
    try:
        return [do(*arguments)]
    except LoadError as error:
        if not rival.is_peer:
            raise
        print(f"left out of this case: {error}", file=sys.stderr, flush=True)
        return []


def _round(entry: _Chosen, case: Case, request: Path, plan: Plan) -> Record:
    record = saturated(entry.fastest, case, request, plan.full_seconds, plan.connections)
    return record | _at_rate(entry.steadiest, case, request, plan.rate_seconds, plan.connections)


def _of(case: Case) -> Record:
    return {
        "case": case.key,
        "title": f"{case.title}; latency at {case.rate:g}/s",
        "model": case.model.key,
        "rows": case.rows,
        "wire": str(case.wire),
    }


def _medians(rounds: Sequence[Record]) -> Record:
    return {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}


def _summary(case: Case, entry: _Chosen, rounds: Sequence[Record]) -> Record:
    return {
        **_of(case),
        "server": entry.rival.name,
        "setting": entry.fastest.setting,
        "setting_at_rate": entry.steadiest.setting,
        **_medians(rounds),
        "failures": sum(found["failures"] + found["failures_at_rate"] for found in rounds),
        "rounds": rounds,
    }


def offers(target: Target, case: Case, request: bytes) -> bool:
    """Whether the server answers such a request. Raises RuntimeError when it answers with wrong predictions."""
    if case.wire is Wire.GRPC:
        return target.grpc_port is not None and _answers_grpc(target.grpc_port, request)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=_TIMEOUT_SECONDS)
    head, _, body = request.partition(b"\r\n\r\n")
    fields = [line.decode().split(": ") for line in head.split(b"\r\n")[1:]]
    try:
        connection.request("POST", wire.PATH, body, dict(fields))
        answer = connection.getresponse()
        data = answer.read()
    except (TimeoutError, http.client.HTTPException, ConnectionError):
        return False
    finally:
        connection.close()
    if answer.status == 200 and case.wire is Wire.JSON:
        outputs = json.loads(data).get("outputs")  # the echo has none
        expected = case.model.estimator.predict(case.model.rows(case.rows)).tolist()
        if outputs is not None and np.ravel(outputs[0]["data"]).tolist() != expected:
            raise RuntimeError(f"{target.title} answers {outputs} to {case.title}, the model predicts {expected}")
    return answer.status == 200


def _answers_grpc(port: int, request: bytes) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(wire.GRPC_METHOD)
        try:
            return bool(call(request[_PREFIX_BYTES:], timeout=_TIMEOUT_SECONDS))
        except grpc.RpcError:
            return False


def _choose(rival: Rival, able: Sequence[Target], case: Case, request: Path, plan: Plan) -> _Chosen:
    """The setting with the most answers a second, and the one with the lowest p99 while the machine ran as usual."""
    full, rate = plan.trial * plan.full_seconds, plan.trial * plan.rate_seconds
    for target in able:
        saturated(target, case, request, full, plan.connections)  # warms up
    if len(able) == 1:
        return _Chosen(rival, able[0], able[0])
    speeds = [saturated(target, case, request, full, plan.connections)["per_second"] for target in able]
    tails = [_at_rate(target, case, request, rate, plan.connections)["p99_calm"] for target in able]
    return _Chosen(rival, able[speeds.index(max(speeds))], able[tails.index(min(tails))])


def saturated(target: Target, case: Case, request: Path, seconds: float, connections: int) -> Record:
    """Answers a second, the server's processor time for each in microseconds, and who had no time left."""
    before = processes.cpu_seconds(target.pid)
    found = _load(target, case, request, seconds, connections, None)
    cpu = processes.cpu_seconds(target.pid) - before
    return {
        "per_second": found["per_second"],
        "cpu": 1e6 * cpu / found["answers"],
        "server_busy": cpu * found["per_second"] / found["answers"],
        "generator_busy": found["busy"],
        "failures": found["failures"],
    }


def _at_rate(target: Target, case: Case, request: Path, seconds: float, connections: int) -> Record:
    found = _load(target, case, request, seconds, connections, case.rate)
    return {**{key: found[key] for key in ("p50", "p99", "p99_calm")}, "failures_at_rate": found["failures"]}


def _load(
    target: Target, case: Case, request: Path, seconds: float, connections: int, rate: float | None
) -> dict[str, float]:
    is_grpc = case.wire is Wire.GRPC
    command = [
        *(sys.executable, "-m", "bench.server.load", str(target.grpc_port if is_grpc else target.port), str(request)),
        *("--connections", str(connections), "--seconds", str(seconds)),
        *(() if rate is None else ("--rate", str(rate))),
        *(("--grpc",) if is_grpc else ()),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + _PATIENCE_SECONDS,
        cwd=ROOT,
        env=environment(PYTHONPATH=str(SOURCE)),
    )
    if done.returncode:
        raise LoadError(f"{target.title}, {case.title}: {done.stderr.strip()[-500:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
