"""What a rollout's analysis remembers between two looks at the counters, and its exact, compact text for `status`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from serin_operator.decide import evidence, one_arm, paired
from serin_operator.decide import pairs as pairs_of
from serin_operator.decide.counters import Ledger
from serin_operator.decide.evidence import Counts, Evidence
from serin_operator.decide.one_arm import OneArm
from serin_operator.decide.pairs import Pairs, Totals
from serin_operator.decide.projection import Integers
from serin_operator.decide.sums import pack, unpack

_LAYOUT = 1
_RATE_UNIT = 1000  # rates are kept as trials in so many minutes
_NEVER = -1.0


@dataclass(frozen=True, slots=True)
class Row:
    """Which test it is: the metric's name and the key of what it counts. Another key is another test."""

    name: str
    key: str


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """The tests of all metrics that have one stratum, as one batch: `tests[i]` is that of `rows[i]`."""

    rows: tuple[Row, ...]
    tests: Evidence


@dataclass(frozen=True, slots=True, eq=False)
class Macro:
    """The test of an average over classes, a batch of one with a stratum per class.

    classes: sorted, and fixed once two are known. Until then there are none, and nothing is tested.
    late: those that were seen after that; they have no part in the average.
    """

    row: Row
    classes: tuple[str, ...]
    late: tuple[str, ...]
    test: Evidence


@dataclass(frozen=True, slots=True, eq=False)
class Arms:
    """The tests of one arm, as one batch: `tests[i]` is called `names[i]` and was given `counts[i]` in all.

    counts: (B, 2), failures and trials.
    """

    names: tuple[str, ...]
    counts: Integers
    tests: OneArm

    def place(self, name: str) -> int:
        """Where the test of this name is. Raises ValueError if there is none."""
        return self.names.index(name)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything that the next look needs.

    since: when counting began, in seconds since the epoch. What an older process counted before is history, also when
        the process could not be read then.
    at: the last look that counted anything. promoted_at: the same when the canary was promoted, else None.
    warming: how many of the next looks are not tested. exposed: requests that the canary has had.
    expected_share: the canary's configured share of the requests, on average over those whose share was tested.
    ledgers: per key, how far the canary's counters and the stable revision's are counted.
    rates: per key, trials in 1000 minutes, in both arms, over the last minutes; a key that never counted has none.
    pairs: None if the canary has never been a shadow.
    """

    since: float
    at: float
    promoted_at: float | None
    warming: int
    exposed: int
    expected_share: float
    ledgers: Mapping[str, tuple[Ledger, Ledger]]
    rates: Mapping[str, int]
    plain: Plain
    macros: tuple[Macro, ...]
    arms: Arms
    pairs: Pairs | None = None

    def per_minute(self, *keys: str) -> float:
        """Trials per minute of these keys together, in both arms; 0 while unknown."""
        return sum(self.rates.get(key, 0) for key in keys) / _RATE_UNIT


def rate(trials: float, minutes: float) -> int:
    """Trials per time in the unit of `State.rates`."""
    return round(trials / minutes * _RATE_UNIT)


def dump(state: State) -> str:
    """The state as text. `load` gives back what dumps equal."""
    keys = list(state.ledgers)
    series = list(dict.fromkeys(one for pair in state.ledgers.values() for ledger in pair for one in ledger.counted))
    place = {one: i for i, one in enumerate(series)}
    counts: list[int] = []
    for pair in state.ledgers.values():
        for ledger in pair:
            counts.append(len(ledger.counted))
            for one, at in ledger.counted.items():
                counts += (place[one], at.failures, at.trials)
    rates = [state.rates.get(key, -1) + 1 for key in keys]
    promoted_at = _NEVER if state.promoted_at is None else state.promoted_at
    integers = [state.warming, state.exposed, *rates, *counts, *state.arms.counts.ravel().tolist()]
    doubles = [state.since, state.at, promoted_at, state.expected_share]
    rows = state.plain.rows
    value = {
        "layout": _LAYOUT,
        "series": series,
        "keys": keys,
        "numbers": pack(integers, doubles, np.zeros(0, np.float32)),
        "metrics": [row.name for row in rows],
        "counted": [_index(keys, row.key) for row in rows],
        "tests": evidence.encode(state.plain.tests),
        "arms": dict(zip(state.arms.names, one_arm.encode(state.arms.tests), strict=True)),
    }
    if state.macros:
        value["macros"] = [[m.row.name, m.row.key, m.classes, m.late, *evidence.encode(m.test)] for m in state.macros]
    if state.pairs is not None:
        pairs = state.pairs
        value["pairs"] = [pairs.stable, pairs.names, pairs.totals.numbers, paired.encode(pairs.tests)]
        value["aged"] = [pairs.window, pairs.ended, pairs.seen.failures, pairs.seen.trials, pairs.begun]
    return json.dumps(value, separators=(",", ":"))


@lru_cache(maxsize=1024)  # a rollout is looked at more often than its counters are read
def load(text: str) -> State:
    """Reads what `dump` wrote. Raises ValueError for anything else, another layout included."""
    try:
        value: dict[str, Any] = json.loads(text)
        if value["layout"] != _LAYOUT:
            raise ValueError(f"the state of the analysis has layout {value['layout']!r}, this version reads {_LAYOUT}")
        return _load(value)
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
        raise ValueError(f"not a state of the analysis: {error!r}") from error


def _load(value: Mapping[str, Any]) -> State:
    series, keys, names = value["series"], value["keys"], tuple(value["arms"])
    integers, (since, at, promoted_at, expected_share), _ = unpack(value["numbers"])
    numbers = iter(integers)
    warming, exposed = next(numbers), next(numbers)
    rates = {key: number - 1 for key, number in [(key, next(numbers)) for key in keys] if number}
    ledgers = {key: (_ledger(numbers, series), _ledger(numbers, series)) for key in keys}
    counts = np.array(list(numbers), np.int64).reshape(len(names), 2)
    rows = tuple(
        Row(name, keys[place] if isinstance(place, int) else place)
        for name, place in zip(value["metrics"], value["counted"], strict=True)
    )
    return State(
        since=float(since),
        at=float(at),
        promoted_at=None if promoted_at == _NEVER else float(promoted_at),
        warming=warming,
        exposed=exposed,
        expected_share=float(expected_share),
        ledgers=ledgers,
        rates=rates,
        plain=Plain(rows, evidence.decode(value["tests"]) if rows else no_tests()),
        macros=tuple(
            Macro(Row(name, key), tuple(classes), tuple(late), evidence.decode([test]))
            for name, key, classes, late, test in value.get("macros", [])
        ),
        arms=Arms(names, counts, one_arm.decode(list(value["arms"].values()))),
        pairs=_pairs(*value["pairs"], *value.get("aged", [])) if "pairs" in value else None,
    )


def _pairs(
    stable: str,
    names: list[str],
    totals: list[int],
    tests: list[str],
    window: float = 0.0,
    ended: float | None = None,
    different: int | None = None,
    seen: int = 0,
    begun: float | None = None,
) -> Pairs:
    """Earlier versions wrote no window and nothing more that was seen: their pairs were counted as they came."""
    of_tests = Totals(*totals)
    counts = Counts(of_tests.different, of_tests.all) if different is None else Counts(different, seen)
    batch = paired.decode(tests) if tests else pairs_of.no_tests()
    return Pairs(stable, tuple(names), batch, of_tests, window, counts, ended, begun)


def no_tests() -> Evidence:
    """An empty batch."""
    return evidence.start(tolerance=np.zeros(0), margin=np.zeros(0))


def _ledger(numbers: Iterator[int], series: list[str]) -> Ledger:
    return Ledger({series[next(numbers)]: Counts(next(numbers), next(numbers)) for _ in range(next(numbers))})


def _index(keys: list[str], key: str) -> int | str:
    """A key's place; itself while it has no ledger yet."""
    return keys.index(key) if key in keys else key
