"""Finds the pairs of answers to one request, and counts them: in the canary's servers, for the revision that answered.

In which order answers and labels come changes nothing, nor does what comes again: a pair is counted when its second
answer comes and forgotten as such, a label when the pair and the label are there. What is remembered is bounded.

Labels count in two ways. As they arrive: pairs that have none yet are remembered, the older the fewer (`memory`). And
when their pairs are as old as the label window, if there is one: of a sample that is drawn before any label is known
(`settling`), with the labels that came by that age.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from serin_server.monitor.classes import Kind, Outcome, label_text, quantity_of
from serin_server.monitor.exposition import head, labels, number
from serin_server.monitor.metrics import MAX_CLASSES, OTHER
from serin_server.monitor.settled import AT_ARRIVAL, ERROR_BUCKETS
from serin_server.shadow.answers import Batch, Told, ToldLabel
from serin_server.shadow.memory import Recent, Thinned
from serin_server.shadow.settling import Label, Pair, Settling

# Answers that have no partner, labels that have no pair, and the latest pairs that have no label, of each.
REMEMBERED = 20_000
# In seconds, from the first server's batch to the last one's when all are carried, and less than to those that follow.
_ONE_PASS = 5

_WHOSE = {(False, False): "none", (True, False): "canary", (False, True): "stable", (True, True): "both"}

# Told of each label that a pair gets, with the window in which it counts; 0 for at arrival.
OnLabel = Callable[[Pair, Label, int], None]


class Pairs:
    """The pairs of one server; it has all of them, also where several processes answer."""

    def __init__(self, model: str, revision: str, on_label: OnLabel, remembered: int = REMEMBERED) -> None:
        self._model = model
        self._revision = revision
        self._on_label = on_label
        self._own: Recent[Told] = Recent(remembered)
        self._theirs: Recent[tuple[str, Told]] = Recent(remembered)
        self._unlabelled: Thinned[Pair] = Thinned(remembered)
        self._early: Recent[ToldLabel] = Recent(remembered)
        self._settling: Settling | None = None
        self._hearing = 0.0  # when the servers began to be asked, the last time
        self._heard = 0.0  # the time before: all that was there to tell until then has been told
        # All by window, "0" at arrival, and stable revision.
        self._pairs: Counter[tuple[str, str, str]] = Counter()  # and whether the answers are equal
        self._labels: Counter[tuple[str, str, str, str]] = Counter()  # and whose answer is wrong
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

    def take(self, batch: Batch, now: float) -> None:
        """Take in what a server of another revision told, at `now` in seconds since 1970."""
        if batch.revision == self._revision:
            return
        self._hear(batch, now)
        for theirs in batch.answers:
            own = self._own.take(theirs.key)
            if own is None:
                self._theirs.put(theirs.key, (batch.revision, theirs))
            else:
                self._pair(batch.revision, own, theirs)
        for label in batch.labels:
            self._labelled(label if label.at else replace(label, at=math.ceil(now)))

    def settle(self) -> Iterator[None]:
        """Count the pairs that are old enough, a few at each step.

        As far as it is known that their labels would have been told: of pairs that nobody carries labels for any more,
        only those with quick ones would seem to have any.
        """
        settling = self._settling
        while settling is not None and (settled := settling.settled(self._heard)):
            for pair, label in settled:
                self._pairs[str(settling.window), pair.stable, _compared(pair)] += 1
                if label is not None:
                    self._label(pair, label, settling.window)
            yield

    def render(self) -> str:
        """The counters in Prometheus' text format."""
        for _ in self.settle():
            pass
        if not self._pairs:
            return ""
        lines = [*self._of_window("serin_pairs_total", "serin_paired_labels_total", settled=False)]
        lines += self._of_window("serin_pairs_settled_total", "serin_paired_labels_settled_total", settled=True)
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

    def _hear(self, batch: Batch, now: float) -> None:
        if abs(now - self._hearing) >= _ONE_PASS:  # the servers are asked anew, or the clock was put back
            self._heard, self._hearing = min(self._hearing, now), now
        if batch.window != (self._settling.window if self._settling is not None else 0):
            self._settling = Settling(batch.window) if batch.window else None
        if batch.window:  # a reader sees by this series that pairs are counted in this window
            self._pairs[str(batch.window), batch.revision, "same"] += 0

    def _pair(self, stable: str, own: Told, theirs: Told) -> None:
        pair = Pair(stable, own.outcome, theirs.outcome, own.made)
        answers = _compared(pair)
        self._pairs[AT_ARRIVAL, stable, answers] += 1
        if pair.own.kind is Kind.QUANTITY:
            self._measure(pair)
        elif answers == "different":
            self._moves[stable, "canary", self._class(pair.own.text)] += 1
            self._moves[stable, "stable", self._class(pair.theirs.text)] += 1
        if self._settling is not None:
            self._settling.add(pair, theirs.nonce)
        if not theirs.nonce:
            return
        self._unlabelled.put(theirs.nonce, pair)
        label = self._early.take(theirs.nonce)
        if label is not None:
            self._labelled(label)

    def _labelled(self, label: ToldLabel) -> None:
        """One that has no pair may have come before it."""
        if self._settling is not None:
            self._settling.label(label.nonce, label.value, label.at)
        pair = self._unlabelled.take(label.nonce)
        if pair is None:
            self._early.put(label.nonce, label)
        else:
            self._label(pair, label.value)

    def _measure(self, pair: Pair) -> None:
        """Count how far two predicted numbers are apart."""
        one, other = quantity_of(pair.own), quantity_of(pair.theirs)
        if one is None or other is None:
            return
        distance = float(abs(one - other))
        counts = self._distances.setdefault(pair.stable, [0.0] * (len(ERROR_BUCKETS) + 2))
        counts[bisect_left(ERROR_BUCKETS, distance)] += 1
        counts[-1] += distance

    def _label(self, pair: Pair, label: Label, window: int = 0) -> None:
        self._on_label(pair, label, window)
        wrong = [_wrong(each, label) for each in (pair.own, pair.theirs)]
        if None in wrong:
            return  # no class, or no label for one
        whose = _WHOSE[bool(wrong[0]), bool(wrong[1])]
        self._labels[str(window), pair.stable, _compared(pair), whose] += 1

    def _class(self, name: str) -> str:
        """The class itself while there are few."""
        known = {predicted for _, _, predicted in self._moves}
        return name if name in known or len(known) < MAX_CLASSES else OTHER

    def _of_window(self, pairs: str, paired_labels: str, *, settled: bool) -> Iterator[str]:
        """The two families of pairs and of their labels: at arrival, or at an age."""
        when = " when they are as old as window says" if settled else ""

        def window_of(window: str) -> dict[str, str]:
            return {"window": window} if settled else {}

        yield head(pairs, "counter", f"Answers of two revisions to the same row of a request{when}.")
        for (window, stable, answers), count in self._pairs.items():
            if (window != AT_ARRIVAL) == settled:
                yield self._sample(pairs, count, stable, answers=answers, **window_of(window))
        yield head(paired_labels, "counter", f"Pairs with a label, by whose answer is wrong{when}.")
        for (window, stable, answers, wrong), count in self._labels.items():
            if (window != AT_ARRIVAL) == settled:
                yield self._sample(paired_labels, count, stable, answers=answers, wrong=wrong, **window_of(window))

    def _sample(self, name: str, count: float, stable: str, **more: str) -> str:
        return f"{name}{{{labels(model=self._model, revision=self._revision, stable=stable, **more)}}} {count}\n"


def _compared(pair: Pair) -> str:
    """Whether the answers are equal: as texts, so that the number 3 and the text "3" are."""
    return "same" if pair.own.text == pair.theirs.text else "different"


def _wrong(outcome: Outcome, value: Label) -> bool | None:
    """Whether a predicted class is not the label; None if that can not be told."""
    if outcome.kind is Kind.QUANTITY:
        return None
    try:
        return label_text(value, outcome.kind) != outcome.text
    except ValueError:
        return None
