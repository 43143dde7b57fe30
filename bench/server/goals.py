"""What was promised of the model server, and what was measured."""

from collections.abc import Iterator, Sequence

from bench.decisions.report import Goal
from bench.server.measure import FLOORS, Record

SERIN, NOT_ACCELERATED, MLSERVER, KSERVE, ECHO = "Serin", "Serin, not accelerated", "MLServer", "KServe", "empty echo"


class Results:
    """What was measured, to be asked by case and server."""

    def __init__(self, records: Sequence[Record], footprints: Sequence[Record]) -> None:
        self._records = {(record["case"], record["server"]): record for record in records}
        self.footprints = {(record["model"], record["server"]): record for record in footprints}

    def of(self, case: str, *servers: str) -> tuple[Record, ...] | None:
        """The records of these servers, None unless all were measured."""
        found = [self._records.get((case, server)) for server in servers]
        return tuple(record for record in found if record is not None) if None not in found else None


def goals(results: Results) -> Iterator[Goal]:
    """Those for which enough was measured."""
    yield from _against_peers(results, "iris-1-json", "One row of iris", 20, 15)
    yield from _latency(results)
    yield from _against_peers(results, "forest-1-json", "One row of the forest", 20, 80)
    yield from _against_peers(results, "forest-100-json", "A hundred rows of the forest", 3, 10)
    yield from _not_accelerated(results)
    for model in ("iris", "forest", "boosting"):
        yield from _floor_of_one_row(results, model)
    for model in ("iris", "forest", "boosting"):
        yield from _floor_of_many_rows(results, model)
    yield from _footprints(results)


def at_least(promise: str, measured: float, goal: float, unit: str = " ×") -> Goal:
    """A number that should be large, with by how much it misses."""
    text = f"{measured:.3g}{unit}"
    kept = measured >= goal
    return Goal(promise, text if kept else f"{text}: {100 * (1 - measured / goal):.0f} % too little", kept)


def at_most(promise: str, measured: float, goal: float, unit: str = " ×") -> Goal:
    """A number that should be small, with by how much it misses."""
    text = f"{measured:.3g}{unit}"
    kept = measured <= goal
    return Goal(promise, text if kept else f"{text}: {100 * (measured / goal - 1):.0f} % too much", kept)


def _against_peers(results: Results, case: str, what: str, mlserver: float, kserve: float) -> Iterator[Goal]:
    for peer, times in ((MLSERVER, mlserver), (KSERVE, kserve)):
        found = results.of(case, SERIN, peer)
        if found:
            own, other = found
            yield at_least(
                f"{what}: at least {times:g} × the requests of {peer} ({other['setting']})",
                own["per_second"] / other["per_second"],
                times,
            )


def _latency(results: Results) -> Iterator[Goal]:
    found = results.of("iris-1-json", SERIN, ECHO)
    if found:
        own, echo = found
        yield at_most(
            f"One row of iris, calm p99 at 300 requests/s: at most 1 ms (of all requests {own['p99']:.2f} ms; "
            f"the empty echo's: {echo['p99_calm']:.2f} ms)",
            own["p99_calm"],
            1.0,
            " ms",
        )
    found = results.of("iris-1-json", SERIN, MLSERVER, KSERVE)
    if found:
        better, of_all = (min(peer[key] for peer in found[1:]) for key in ("p99_calm", "p99"))
        yield at_most(
            f"One row of iris, calm p99 at 300 requests/s: at most ¼ of the better peer's {better:.2f} ms "
            f"(of all requests {found[0]['p99'] / of_all:.2f} × {of_all:.1f} ms)",
            found[0]["p99_calm"] / better,
            0.25,
        )


def _not_accelerated(results: Results) -> Iterator[Goal]:
    found = results.of("forest-1-json", NOT_ACCELERATED, MLSERVER)
    if found:
        own, other = found
        yield at_least(
            f"One row of the forest, not accelerated: no fewer requests than MLServer ({other['setting']})",
            own["per_second"] / other["per_second"],
            1.0,
        )
        yield at_most(
            "… at a calm p99 no worse than MLServer's at its best setting for that "
            f"({other['setting_at_rate']}, {other['p99_calm']:.1f} ms)",
            own["p99_calm"] / other["p99_calm"],
            1.0,
        )


def _floor_of_one_row(results: Results, model: str) -> Iterator[Goal]:
    found = results.of(f"{model}-1-json", SERIN, ECHO, FLOORS)
    if found:
        own, echo, floors = found
        floor = echo["cpu"] + floors["served"]
        yield at_most(
            f"{model}, one row: processor time within 25 % of an empty echo and the model's call, {floor:.0f} µs",
            own["cpu"] / floor,
            1.25,
        )


def _floor_of_many_rows(results: Results, model: str) -> Iterator[Goal]:
    found = results.of(f"{model}-100-json", SERIN, FLOORS)
    if found:
        own, floors = found
        yield at_most(
            f"{model}, a hundred rows: at most 1.5 × the time to parse, predict and encode, {floors['whole']:.0f} µs",
            own["cpu"] / floors["whole"],
            1.5,
        )


def _footprints(results: Results) -> Iterator[Goal]:
    for model in ("iris", "forest"):
        own, other = (results.footprints.get((model, server)) for server in (SERIN, MLSERVER))
        if own and other:
            for key, what in (("ready", "start to ready"), ("memory", "resident memory")):
                yield at_most(f"{model}: {what} at most half of MLServer's", own[key] / other[key], 0.5)
