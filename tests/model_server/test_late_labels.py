"""Labels that come late: with which chance their pairs are still remembered, and that nothing else decides that."""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model_server.serving import KEY, REVISION
from tests.model_server.turns import counting_turns

from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.cohorts import WINDOWS, bucket_width
from serin_server.monitor.feedback import FeedbackCounter
from serin_server.monitor.keys import Keyring
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.shadow import settling
from serin_server.shadow.answers import Answers, Batch, Told, ToldLabel, parse_batch
from serin_server.shadow.book import Book
from serin_server.shadow.memory import Thinned
from serin_server.shadow.pairs import REMEMBERED, Pairs
from serin_server.shadow.settling import Label, Pair, Settling

STABLE = "aaaaaaaaaa"
START = 1_800_000_000
CAT, DOG = Outcome(Kind.TEXT, "cat"), Outcome(Kind.TEXT, "dog")


def remembered(memory: Thinned[int], arrivals: int, behind: int) -> float:
    """Of so many entries, the share that is still there when so many others have come after each."""
    found = 0
    for number in range(arrivals + behind):
        memory.put(str(number), number)
        if number >= behind:
            found += memory.take(str(number - behind)) is not None
    return found / arrivals


@pytest.mark.parametrize(("behind", "least", "most"), [(99, 1, 1), (1_100, 0.02, 0.04), (10_100, 0.002, 0.004)])
def test_the_older_the_fewer_are_remembered(behind: int, least: float, most: float) -> None:
    memory: Thinned[int] = Thinned(100, each=20)
    share = remembered(memory, 50_000, behind)
    assert 0.9 * least <= share <= 1.1 * most


def test_one_in_64_labels_counts_that_comes_half_an_hour_late_at_100_requests_a_second() -> None:
    memory: Thinned[int] = Thinned(REMEMBERED)
    assert remembered(memory, 40_000, 30 * 60 * 100) == pytest.approx(1 / 64, rel=0.15)


def test_what_is_remembered_of_what_is_old_is_bounded() -> None:
    memory: Thinned[int] = Thinned(100, each=20)
    for number in range(100_000):
        memory.put(str(number), number)
    assert 200 < sum(memory.take(str(number)) is not None for number in range(100_000)) <= 100 + 18 * 20


@pytest.mark.parametrize("window", WINDOWS)
def test_each_pair_of_a_bucket_is_drawn_with_the_same_chance(window: int) -> None:
    width = bucket_width(window)
    drawn: Counter[int] = Counter()
    for turn in range(2_000):
        settling = Settling(window, each=3)
        made = START // width * width
        for number in range(12):
            settling.add(Pair(STABLE, Outcome(Kind.NUMBER, str(number)), CAT, made), f"{turn} {number}")
        assert not list(settling.settled(made + width + window - 1)), turn
        drawn.update(int(pair.own.text) for pair, _ in settling.settled(made + width + window))
    assert sum(drawn.values()) == 3 * 2_000
    assert all(drawn[number] == pytest.approx(500, abs=90) for number in range(12))


class Count:
    """What one server counts; and the labels that the canary's own counters were told, by window and if right."""

    def __init__(self, window: int = 0, remembered: int = REMEMBERED) -> None:
        self.labels: Counter[tuple[int, bool]] = Counter()
        self.pairs = Pairs("m", REVISION, self._label, remembered)
        self.window = window

    def _label(self, pair: Pair, label: Label, window: int) -> None:
        self.labels[window, label == pair.own.text] += 1

    def answer(self, name: str, made: float, own: Outcome = CAT, theirs: Outcome = CAT) -> None:
        self.pairs.answered([Told(name, "", own, int(made))])
        self.pairs.take(Batch(STABLE, [Told(name, name, theirs)], [], self.window), made)

    def hear(self, now: float, *labels: ToldLabel) -> None:
        self.pairs.take(Batch(STABLE, [], labels, self.window), now)

    def shown(self, family: str) -> dict[str, float]:
        """The samples, without what they have in common."""
        start = f'{family}{{model="m",revision="{REVISION}",stable="{STABLE}",'
        lines = [line for line in self.pairs.render().splitlines() if line.startswith(start)]
        return {line.rpartition("}")[0].removeprefix(start): float(line.rpartition(" ")[2]) for line in lines}

    def settled(self) -> tuple[dict[str, float], dict[str, float]]:
        """Pairs, and labels."""
        return self.shown("serin_pairs_settled_total"), self.shown("serin_paired_labels_settled_total")


def passes(count: Count, seconds: int, rate: int, late: int) -> Iterator[None]:
    """A look each 10 s. Half of the labels come after a second, and then both are right; half late, and both are wrong.

    late: in seconds.
    """
    for look in range(0, seconds, 10):
        now = START + look + 10
        made = [(second, number) for second in range(look, look + 10) for number in range(rate)]
        names = {second * rate + number: START + second for second, number in made}
        count.pairs.answered([Told(str(name), "", CAT, at) for name, at in names.items()])
        quick = [ToldLabel(str(name), "cat", at + 1) for name, at in names.items() if name % 2]
        slow = [
            ToldLabel(str(name), "dog", START + second + late)
            for second in range(look - late, look - late + 10)
            for name in range(second * rate, (second + 1) * rate)
            if second >= 0 and name % 2 == 0
        ]
        count.pairs.take(Batch(STABLE, [Told(str(name), str(name), CAT) for name in names], [], count.window), now)
        count.hear(now, *quick, *slow)
        yield


def test_late_labels_weigh_as_much_as_early_ones_at_the_age_of_a_window() -> None:
    """At 100 requests a second half of the labels come four minutes later, and say the opposite."""
    count = Count(window=300, remembered=1_000)
    for _ in passes(count, 450, 100, 240):
        pairs, labels = count.settled()
    right, wrong = (labels[f'answers="same",wrong="{whose}",window="300"'] for whose in ("none", "both"))
    buckets = (450 - 10 - 300) // 5  # of which all was told when the last look began
    assert (
        pairs
        == {'answers="same",window="300"': buckets * settling.EACH}
        == {'answers="same",window="300"': wrong + right}
    )
    assert wrong / (wrong + right) == pytest.approx(0.5, abs=0.02)
    assert (count.labels[300, False], count.labels[300, True]) == (wrong, right)
    # As they arrive, the chance of late ones is what memory has for them: more than none, but less than of early ones.
    came = (450 - 240) / 450
    assert 0.1 < count.labels[0, False] / count.labels[0, True] / came < 0.4


Event = tuple[int, int | None]  # how late the canary's answer and the label are told


@given(events=st.lists(st.tuples(st.integers(0, 40), st.none() | st.integers(0, 90)), max_size=8), seed=st.integers(0))
def test_pairs_and_labels_in_time_count_once_at_their_age_in_any_order(events: Sequence[Event], seed: int) -> None:
    count = Count(window=60)
    told: list[tuple[int, Told | Batch]] = []
    for number, (answer, label) in enumerate(events):
        own = DOG if number % 2 else CAT
        told.append((answer, Told(str(number), "", own, START)))
        told.append((number % 3, Batch(STABLE, [Told(str(number), str(number), CAT)], [], 60)))
        if label is not None:
            told.append((label, Batch(STABLE, [], [ToldLabel(str(number), "cat", START + label)], 60)))
    random.Random(seed).shuffle(told)
    for late, one in sorted(told, key=lambda each: each[0]):
        if isinstance(one, Told):
            count.pairs.answered([one])
        else:
            count.pairs.take(one, START + late)
        count.pairs.render()
    for now in (START + 100, START + 200):
        count.hear(now)
        pairs, labels = count.settled()
    differ = len(events) // 2
    assert sum(pairs.values()) == len(events)
    assert pairs.get('answers="different",window="60"', 0) == differ
    in_time = [number for number, (_, label) in enumerate(events) if label is not None and label <= 60]
    assert sum(labels.values()) == len(in_time)
    assert count.labels[60, False] == sum(number % 2 for number in in_time)


def test_a_reader_sees_at_once_that_pairs_are_counted_in_this_window() -> None:
    count = Count(window=60)
    count.hear(START)
    assert count.settled() == ({'answers="same",window="60"': 0}, {})


def test_nothing_settles_when_nobody_tells_of_labels_any_more() -> None:
    """Of pairs whose labels are no longer carried, only those with quick ones would seem to have any."""
    count = Count(window=60)
    count.answer("a", START)
    count.hear(START + 50, ToldLabel("a", "cat", START + 40))
    assert sum(count.settled()[0].values()) == 0
    count.hear(START + 61)
    assert sum(count.settled()[0].values()) == 0
    count.hear(START + 71)
    assert count.settled() == (
        {'answers="same",window="60"': 1},
        {'answers="same",wrong="none",window="60"': 1},
    )


def test_nothing_settles_while_one_pass_of_the_courier_goes_on() -> None:
    """The label is told by the last of three servers, and the counters are read while the others are asked."""
    count = Count(window=60)
    count.answer("a", START)
    count.hear(START + 61)
    count.hear(START + 62)
    assert sum(count.settled()[0].values()) == 0
    count.hear(START + 63, ToldLabel("a", "cat", START + 60))
    count.hear(START + 71)
    assert sum(count.settled()[1].values()) == 1


def test_a_clock_that_was_put_back_lets_nothing_settle_early() -> None:
    count = Count(window=60)
    count.hear(START + 86_400)
    count.answer("a", START)
    for second in (0, 10, 20, 60):
        count.hear(START + second)
        assert sum(count.settled()[0].values()) == 0
    count.hear(START + 61, ToldLabel("a", "cat", START + 60))
    count.hear(START + 70)
    count.hear(START + 80)
    assert sum(count.settled()[1].values()) == 1


def test_the_first_label_of_a_pair_is_the_one_that_counts() -> None:
    count = Count(window=60)
    count.answer("a", START)
    count.hear(START + 10, ToldLabel("a", "cat", START + 10), ToldLabel("a", "dog", START + 11))
    count.hear(START + 70)
    count.hear(START + 80)
    assert count.settled()[1] == {'answers="same",wrong="none",window="60"': 1}
    assert count.labels == {(0, True): 1, (60, True): 1}


def test_another_window_begins_with_no_pair() -> None:
    count = Count(window=60)
    count.answer("a", START)
    count.window = 10
    count.answer("b", START + 1)
    count.hear(START + 90)
    count.hear(START + 100)
    assert count.settled()[0] == {'answers="same",window="60"': 0, 'answers="same",window="10"': 1}


def test_a_server_that_does_not_say_when_a_label_came_is_taken_to_tell_it_at_once() -> None:
    count = Count(window=60)
    for name in "ab":
        count.answer(name, START)
    count.hear(START + 60, ToldLabel("a", "cat"))
    count.hear(START + 70, ToldLabel("b", "cat"))
    count.hear(START + 80)
    assert sum(count.settled()[1].values()) == 1


def test_of_many_labels_at_once_those_are_told_that_others_draw_too() -> None:
    """60,000 come between two askings, in an order of their own: all 333 pairs that wait for theirs get it."""
    count, answers, keyring = Count(window=60), Answers(Keyring.of(KEY), "m", STABLE), Keyring.of(KEY)
    names = [str(number) for number in range(60_000)]
    place = ""

    def carried(now: float) -> None:
        nonlocal place
        for _ in range(4):
            sealed = answers.batch(place)
            place = sealed.partition(b" ")[0].decode()
            count.pairs.take(replace(parse_batch(sealed, keyring, "m"), window=60), now)

    copied = names[::3]
    count.pairs.answered([Told(name, "", CAT, START) for name in copied])
    answers.answered([Told(name, name, CAT) for name in copied])
    carried(START)
    for name in sorted(names):
        answers.labelled(STABLE, name, "cat", START + 30)
    carried(START + 30)
    carried(START + 70)
    carried(START + 80)
    assert count.settled() == (
        {'answers="same",window="60"': settling.EACH},
        {'answers="same",wrong="none",window="60"': settling.EACH},
    )


@pytest.mark.parametrize(("first", "window"), [(b"1800", 1800), (b"0", 0), (b"7", 0), (b"e.5 1", 0), (b"", 0)])
def test_the_carrier_tells_the_window_in_place_of_the_first_line(first: bytes, window: int) -> None:
    answers = Answers(Keyring.of(KEY), "m", STABLE)
    answers.answered([Told("k", "n", CAT)])
    answers.labelled(STABLE, "n", "cat", START - 0.5)
    sealed = first + b"\n" + answers.batch("").partition(b"\n")[2]
    batch = parse_batch(sealed, Keyring.of(KEY), "m")
    assert batch.window == window
    assert batch.labels == [ToldLabel("n", "cat", START)]


def desk() -> tuple[Book, Metrics]:
    """A canary's server whose counters show only what was counted without them being read."""
    keyring, metrics = Keyring.of(KEY), Metrics("m", REVISION, ["cat", "dog"])
    book = Book(keyring, "m", REVISION)
    book.count_with(FeedbackCounter(Tokens(keyring, "m", REVISION), metrics))
    return book, metrics


def sealed(answers: Answers, window: int = 60) -> bytes:
    return b"%d\n%s" % (window, answers.batch("").partition(b"\n")[2])


@pytest.mark.parametrize(("after", "counts"), [(60, 1), (60.01, 0), (60.99, 0)])
async def test_a_label_is_in_time_to_the_fraction_of_a_second_as_one_of_stable_is(
    after: float, counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (book, metrics), stable = desk(), Answers(Keyring.of(KEY), "m", STABLE)
    metrics.feedback_counted(STABLE, "dog", "cat", "first", START, START + after)
    book.answered([Told("k", "", CAT, START)])
    stable.answered([Told("k", "n", CAT)])
    stable.labelled(STABLE, "n", "dog", START + after)
    for second in (61, 71, 81):
        monkeypatch.setattr(time, "time", lambda now=START + second: now)
        await book.take(sealed(stable))
    text = metrics.render(START + 81).decode()
    for revision in (STABLE, REVISION):
        found = values(text, "serin_feedback_settled_total", revision=revision, actual="dog", window="60")
        assert sum(found.values()) == counts


async def test_pairs_settle_and_are_forgotten_also_where_nobody_reads_the_counters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (book, metrics), stable = desk(), Answers(Keyring.of(KEY), "m", STABLE)
    book.answered([Told("k", "", CAT, START)])
    stable.answered([Told("k", "n", CAT)])
    stable.labelled(STABLE, "n", "dog", START)
    for second in (0, 70, 80):
        monkeypatch.setattr(time, "time", lambda now=START + second: now)
        await book.take(sealed(stable))
    text = metrics.render(START + 80).decode()
    assert values(text, "serin_feedback_settled_total", actual="dog", predicted="cat", window="60") == {"60": 1}


async def test_a_large_batch_lets_requests_take_turns() -> None:
    (book, metrics), stable = desk(), Answers(Keyring.of(KEY), "m", STABLE)
    names = [str(number) for number in range(1_000)]
    book.answered([Told(name, "", CAT, START) for name in names])
    stable.answered([Told(name, name, CAT) for name in names])
    for name in names:
        stable.labelled(STABLE, name, "cat", START)
    _, turns = await counting_turns(book.take(sealed(stable)))
    assert turns >= 10
    assert values(metrics.render(START).decode(), "serin_feedback_total", actual="cat") == {"": 1_000}


def served(label: str | float, own: Outcome) -> str:
    """What the canary's server shows of a label that came for the other answer of a pair, when it is a minute old."""
    keyring = Keyring.of(KEY)
    classes = None if own.kind is Kind.QUANTITY else ["cat", "dog"]
    metrics, book = Metrics("m", REVISION, classes), Book(keyring, "m", REVISION)
    book.count_with(FeedbackCounter(Tokens(keyring, "m", REVISION), metrics))
    metrics.also(book.pairs.render)
    book.answered([Told("k", "", own, START)])
    book.pairs.take(Batch(STABLE, [Told("k", "n", own)], [ToldLabel("n", label, START + 30)], 60), START + 30)
    for second in (90, 100):
        book.pairs.take(Batch(STABLE, [], [], 60), START + second)
    return metrics.render(START + 90).decode()


def values(text: str, family: str, **labels: str) -> dict[str, float]:
    """By window."""
    found = {}
    for line in text.splitlines():
        if line.startswith(f"{family}{{") and all(f'{name}="{value}"' in line for name, value in labels.items()):
            window = line.partition('window="')[2].partition('"')[0]
            found[window] = float(line.rpartition(" ")[2])
    return found


def test_the_label_of_a_pair_counts_for_the_canary_at_arrival_and_in_the_window_that_is_told() -> None:
    text = served("dog", CAT)
    assert values(text, "serin_feedback_total", actual="dog", predicted="cat") == {"": 1}
    settled = values(text, "serin_feedback_settled_total", actual="dog", predicted="cat")
    assert settled == {str(window): float(window == 60) for window in WINDOWS}


def test_the_label_of_a_pair_of_numbers_does_too() -> None:
    text = served(1.5, Outcome(Kind.QUANTITY, "1.25"))
    counted = values(text, "serin_feedback_error_count")
    assert counted == {"0": 1} | {str(window): float(window == 60) for window in WINDOWS}
