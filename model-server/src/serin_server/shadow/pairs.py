"""Finds the pairs of answers to one request, and counts them: in the canary's servers, for the revision that answered.

In which order answers and labels come changes nothing, nor does what comes again: a pair is counted when its second
answer comes and forgotten as such, a label when the pair and the label are there. What is remembered is bounded, the
oldest goes first.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from serin_server.monitor.classes import Kind, Outcome, label_text, quantity_of
from serin_server.monitor.exposition import head, labels, number
from serin_server.monitor.metrics import MAX_CLASSES, OTHER
from serin_server.monitor.settled import ERROR_BUCKETS
from serin_server.shadow.answers import Batch, Told, ToldLabel

# Answers that have no partner, labels that have no pair, and pairs that have no label, of each; about 6 MB per kind.
REMEMBERED = 20_000

_WHOSE = {(False, False): "none", (True, False): "canary", (False, True): "stable", (True, True): "both"}

V = TypeVar("V")
# Told of each label that a pair gets: the pair's own answer and the label.
OnLabel = Callable[[Told, str | int | float | bool], None]


class _Recent(Generic[V]):
    """A bounded dictionary, whose oldest entry goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[str, V] = {}

    def put(self, key: str, value: V) -> None:
        """Keeps what is there already."""
        if key in self._entries:
            return
        if len(self._entries) >= self._most:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = value

    def take(self, key: str) -> V | None:
        return self._entries.pop(key, None)


class Pairs:
    """The pairs of one server; it has all of them, also where several processes answer."""

    def __init__(self, model: str, revision: str, on_label: OnLabel, remembered: int = REMEMBERED) -> None:
        self._model = model
        self._revision = revision
        self._on_label = on_label
        self._own: _Recent[Told] = _Recent(remembered)
        self._theirs: _Recent[tuple[str, Told]] = _Recent(remembered)
        self._unlabelled: _Recent[tuple[str, Told, Told]] = _Recent(remembered)
        self._early: _Recent[ToldLabel] = _Recent(remembered)
        self._pairs: Counter[tuple[str, str]] = Counter()  # by stable revision, and whether the answers are equal
        self._labels: Counter[tuple[str, str, str]] = Counter()  # and whose answer is wrong
        self._distances: dict[str, list[float]] = {}  # by stable revision, per bucket and then their sum
        self._moves: Counter[tuple[str, str, str]] = Counter()  # by stable revision, whose answer, and class

    def answered(self, told: Sequence[Told]) -> None:
        """Take in the server's own answers to marked requests."""
        for own in told:
            found = self._theirs.take(own.key)
            if found is None:
                self._own.put(own.key, own)
            else:
                self._pair(found[0], own, found[1])

    def take(self, batch: Batch) -> None:
        """Take in what a server of another revision told."""
        if batch.revision == self._revision:
            return
        for theirs in batch.answers:
            own = self._own.take(theirs.key)
            if own is None:
                self._theirs.put(theirs.key, (batch.revision, theirs))
            else:
                self._pair(batch.revision, own, theirs)
        for label in batch.labels:
            pair = self._unlabelled.take(label.nonce)
            if pair is None:
                self._early.put(label.nonce, label)
            else:
                self._label(*pair, label)

    def render(self) -> str:
        """The counters in Prometheus' text format."""
        if not self._pairs:
            return ""
        lines = [head("serin_pairs_total", "counter", "Answers of two revisions to the same row of a request.")]
        for (stable, answers), count in self._pairs.items():
            lines.append(self._sample("serin_pairs_total", count, stable, answers=answers))
        lines.append(head("serin_paired_labels_total", "counter", "Pairs with a label, by whose answer is wrong."))
        for (stable, answers, wrong), count in self._labels.items():
            lines.append(self._sample("serin_paired_labels_total", count, stable, answers=answers, wrong=wrong))
        lines.append(head("serin_pairs_moved_total", "counter", "Pairs whose answers differ, by who answers what."))
        for (stable, by, predicted), count in self._moves.items():
            lines.append(self._sample("serin_pairs_moved_total", count, stable, by=by, predicted=predicted))
        if self._distances:
            lines.append(head("serin_pairs_distance", "histogram", "How far the two numbers of a pair are apart."))
        for stable, counts in self._distances.items():
            cumulative = list(accumulate(counts[:-1]))
            for bound, pairs in zip((*map(number, ERROR_BUCKETS), "+Inf"), cumulative, strict=True):
                lines.append(self._sample("serin_pairs_distance_bucket", pairs, stable, le=bound))
            lines.append(self._sample("serin_pairs_distance_count", cumulative[-1], stable))
            lines.append(self._sample("serin_pairs_distance_sum", counts[-1], stable))
        return "".join(lines)

    def _pair(self, stable: str, own: Told, theirs: Told) -> None:
        same = _same(own.outcome, theirs.outcome)
        self._pairs[stable, "same" if same else "different"] += 1
        if own.outcome.kind is Kind.QUANTITY:
            self._measure(stable, own, theirs)
        elif not same:
            self._moves[stable, "canary", self._class(own.outcome.text)] += 1
            self._moves[stable, "stable", self._class(theirs.outcome.text)] += 1
        if not theirs.nonce:
            return
        label = self._early.take(theirs.nonce)
        if label is None:
            self._unlabelled.put(theirs.nonce, (stable, own, theirs))
        else:
            self._label(stable, own, theirs, label)

    def _measure(self, stable: str, own: Told, theirs: Told) -> None:
        """Count how far two predicted numbers are apart."""
        one, other = quantity_of(own.outcome), quantity_of(theirs.outcome)
        if one is None or other is None:
            return
        distance = float(abs(one - other))
        counts = self._distances.setdefault(stable, [0.0] * (len(ERROR_BUCKETS) + 2))
        counts[bisect_left(ERROR_BUCKETS, distance)] += 1
        counts[-1] += distance

    def _label(self, stable: str, own: Told, theirs: Told, label: ToldLabel) -> None:
        self._on_label(own, label.value)
        wrong = [_wrong(each.outcome, label.value) for each in (own, theirs)]
        if None in wrong:
            return  # no class, or no label for one
        whose = _WHOSE[bool(wrong[0]), bool(wrong[1])]
        answers = "same" if _same(own.outcome, theirs.outcome) else "different"
        self._labels[stable, answers, whose] += 1

    def _class(self, name: str) -> str:
        """The class itself while there are few."""
        known = {predicted for _, _, predicted in self._moves}
        return name if name in known or len(known) < MAX_CLASSES else OTHER

    def _sample(self, name: str, count: float, stable: str, **more: str) -> str:
        return f"{name}{{{labels(model=self._model, revision=self._revision, stable=stable, **more)}}} {count}\n"


def _same(own: Outcome, theirs: Outcome) -> bool:
    """Whether the answers are equal: as texts, so that the number 3 and the text "3" are."""
    return own.text == theirs.text


def _wrong(outcome: Outcome, value: str | int | float | bool) -> bool | None:
    """Whether a predicted class is not the label; None if that can not be told."""
    if outcome.kind is Kind.QUANTITY:
        return None
    try:
        return label_text(value, outcome.kind) != outcome.text
    except ValueError:
        return None
