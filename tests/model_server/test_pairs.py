"""Pairs of answers: whatever order they come in, and however often, each counts once; nothing foreign counts."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model_server.serving import KEY, REVISION

from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.keys import Keyring
from serin_server.monitor.settled import ERROR_BUCKETS
from serin_server.protocol.errors import RequestError
from serin_server.shadow.answers import MOST_AT_ONCE, Answers, Batch, Told, ToldLabel, key_of, parse_batch
from serin_server.shadow.pairs import Pairs
from serin_server.shadow.settling import Label, Pair

STABLE = "aaaaaaaaaa"
RING = Keyring.of(KEY)
NOW = 1_800_000_000
CLASSES = ("cat", "dog", "emu")


def outcome(name: str) -> Outcome:
    return Outcome(Kind.TEXT, name)


def told(key: str, name: str, nonce: str = "") -> Told:
    return Told(key, nonce, outcome(name))


def counts(pairs: Pairs) -> dict[str, float]:
    """The samples, without what they have in common."""
    common = f'model="m",revision="{REVISION}",stable="{STABLE}",'
    lines = [line for line in pairs.render().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0].replace(common, ""): float(line.rpartition(" ")[2]) for line in lines}


class Labels:
    """What the canary's own counters are told."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, object]] = Counter()

    def __call__(self, pair: Pair, label: Label, window: int) -> None:
        self.seen[pair.own.text, label] += 1


Request = tuple[str, str, str | None]  # stable's class, the canary's, and the label

requests = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES), st.sampled_from([*CLASSES, None])), max_size=12
)


def expected(asked: Sequence[Request]) -> tuple[dict[str, float], Counter[tuple[str, object]]]:
    found: Counter[str] = Counter()
    labels: Counter[tuple[str, object]] = Counter()
    for stable, canary, label in asked:
        answers = "same" if stable == canary else "different"
        found[f'serin_pairs_total{{answers="{answers}"}}'] += 1
        if stable != canary:
            found[f'serin_pairs_moved_total{{by="canary",predicted="{canary}"}}'] += 1
            found[f'serin_pairs_moved_total{{by="stable",predicted="{stable}"}}'] += 1
        if label is None:
            continue
        labels[canary, label] += 1
        wrong = {(True, True): "both", (True, False): "canary", (False, True): "stable", (False, False): "none"}
        whose = wrong[canary != label, stable != label]
        found[f'serin_paired_labels_total{{answers="{answers}",wrong="{whose}"}}'] += 1
    return dict(found), labels


@given(asked=requests, seed=st.integers(0, 2**32), copies=st.integers(1, 3))
def test_each_pair_and_label_counts_once_in_any_order(asked: list[Request], seed: int, copies: int) -> None:
    labels = Labels()
    pairs = Pairs("m", REVISION, labels)
    events: list[tuple[str, object]] = []
    for number, (stable, canary, label) in enumerate(asked):
        events.append(("own", told(f"k{number}", canary)))
        events += [("theirs", told(f"k{number}", stable, f"n{number}"))] * copies
        if label is not None:
            events += [("label", ToldLabel(f"n{number}", label))] * copies
    events += [("theirs", told("foreign", "cat", "n-foreign")), ("label", ToldLabel("unknown", "cat"))]
    random.Random(seed).shuffle(events)
    for kind, value in events:
        if isinstance(value, ToldLabel):
            pairs.take(Batch(STABLE, [], [value]), NOW)
        elif isinstance(value, Told) and kind == "own":
            pairs.answered([value])
        elif isinstance(value, Told):
            pairs.take(Batch(STABLE, [value], []), NOW)
    assert (counts(pairs), labels.seen) == expected(asked)


def test_a_replay_of_everything_changes_nothing() -> None:
    pairs = Pairs("m", REVISION, Labels())
    batch = Batch(STABLE, [told("k", "cat", "n"), told("k2", "dog", "n2")], [ToldLabel("n", "dog")])
    pairs.answered([told("k", "dog"), told("k2", "dog")])
    pairs.take(batch, NOW)
    before = counts(pairs)
    for _ in range(3):
        pairs.take(batch, NOW)
    assert counts(pairs) == before


def test_a_servers_own_batch_makes_no_pairs() -> None:
    pairs = Pairs("m", REVISION, Labels())
    pairs.answered([told("k", "cat")])
    pairs.take(Batch(REVISION, [told("k", "dog")], []), NOW)
    assert counts(pairs) == {}


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    pairs = Pairs("m", REVISION, Labels(), remembered=3)
    pairs.answered([told(f"k{number}", "cat") for number in range(5)])
    pairs.take(Batch(STABLE, [told(f"k{number}", "cat") for number in range(5)], []), NOW)
    assert counts(pairs) == {'serin_pairs_total{answers="same"}': 3.0}


def test_the_classes_that_move_are_bounded() -> None:
    pairs = Pairs("m", REVISION, Labels())
    pairs.answered([told(f"k{number}", f"c{number}") for number in range(200)])
    pairs.take(Batch(STABLE, [told(f"k{number}", f"s{number}") for number in range(200)], []), NOW)
    moved = [name for name in counts(pairs) if name.startswith("serin_pairs_moved_total")]
    assert len(moved) <= 2 * 51
    assert 'serin_pairs_moved_total{by="canary",predicted="other"}' in moved


def test_a_number_is_no_class_and_its_label_still_counts_for_the_canary() -> None:
    labels = Labels()
    pairs = Pairs("m", REVISION, labels)
    pairs.answered([Told("k", "", Outcome(Kind.QUANTITY, "1.5"))])
    pairs.take(Batch(STABLE, [Told("k", "n", Outcome(Kind.QUANTITY, "1.25"))], [ToldLabel("n", 1.25)]), NOW)
    found = counts(pairs)
    assert found['serin_pairs_total{answers="different"}'] == 1
    distances = {name: count for name, count in found.items() if name.startswith("serin_pairs_distance_bucket")}
    assert len(distances) == len(ERROR_BUCKETS) + 1
    assert distances['serin_pairs_distance_bucket{le="0.2"}'] == 0
    assert (
        distances['serin_pairs_distance_bucket{le="0.5"}'] == distances['serin_pairs_distance_bucket{le="+Inf"}'] == 1
    )
    assert 0.25 in found.values()
    assert labels.seen == {("1.5", 1.25): 1}


def parsed(batch: bytes) -> Batch:
    return parse_batch(batch, RING, "m")


def test_batches_go_on_where_the_last_one_ended() -> None:
    answers = Answers(RING, "m", STABLE)
    answers.answered([told(f"k{number}", "cat", f"n{number}") for number in range(MOST_AT_ONCE + 2)])
    answers.labelled(STABLE, "n0", "dog", NOW)
    place, found = "", []
    for more in (b"1", b"0", b"0"):
        batch = answers.batch(place)
        head = batch.partition(b"\n")[0].split(b" ")
        place = head[0].decode()
        assert head[1] == more
        found.append(parsed(batch))
    assert [len(batch.answers) for batch in found] == [MOST_AT_ONCE, 2, 0]
    assert found[1].labels == [ToldLabel("n0", "dog", NOW)]
    assert found[1].answers[1] == told(f"k{MOST_AT_ONCE + 1}", "cat", f"n{MOST_AT_ONCE + 1}")


@pytest.mark.parametrize("place", ["", "x", "0123456789ab.7", "..", ".0", "é"])
def test_an_unknown_place_is_the_oldest_that_is_there(place: str) -> None:
    answers = Answers(RING, "m", STABLE, remembered=2)
    answers.answered([told(f"k{number}", "cat") for number in range(3)])
    assert [one.key for one in parsed(answers.batch(place)).answers] == ["k1", "k2"]


def test_labels_of_others_predictions_are_not_told() -> None:
    answers = Answers(RING, "m", STABLE)
    answers.labelled(STABLE, "n", "cat", NOW)  # no marked request yet
    answers.answered([told("k", "cat", "n")])
    answers.labelled("bbbbbbbbbb", "n", "cat", NOW)
    answers.labelled(STABLE, "n", ["no", "label"], NOW)
    assert parsed(answers.batch("")).labels == []


@pytest.mark.parametrize("byte", [0, 40, 90, -1])
def test_a_batch_that_was_changed_is_refused(byte: int) -> None:
    answers = Answers(RING, "m", STABLE)
    answers.answered([told("k", "cat", "n")])
    batch = answers.batch("")
    start = batch.index(b"\n") + 1
    sealed = bytearray(batch)
    sealed[start + byte if byte >= 0 else byte] ^= 1
    with pytest.raises(RequestError) as refused:
        parsed(bytes(sealed))
    assert refused.value.status == 403


def test_a_batch_of_another_model_or_key_is_refused() -> None:
    for keyring, model in ((Keyring.of(KEY), "other"), (Keyring.of(bytes(32)), "m")):
        answers = Answers(keyring, model, STABLE)
        with pytest.raises(RequestError):
            parsed(answers.batch(""))
    for nonsense in (b"", b"\n", b"a\nb\nc"):
        with pytest.raises(RequestError):
            parsed(nonsense)


def test_keys_tell_rows_and_requests_apart() -> None:
    keys = {key_of(request, row) for request in ("a", "1 a", "b") for row in range(20)}
    assert len(keys) == 60
    assert key_of("a", 3) == key_of("a", 3)
