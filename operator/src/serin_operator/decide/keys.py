"""Names of what is counted: the keys of `Snapshot.samples`. `observe` writes them, `analysis` reads them.

| key | counts |
|---|---|
| requests | every request as a trial, none as a failure |
| errors, restarts | as the metric of that type |
| latency@0.25 | requests slower than 0.25 s |
| accuracy@60 | predictions whose label was settled at the age of 60 s; 0: labels as they arrived |
| recall:7@60, precision:7@60, f1:7@60 | the same of class 7. A macro average reads the keys of all classes |
| macro-f1:7@60 | the same for the average of F1: each wrong prediction under one of its two classes only |
| regression@0.5@60 | predictions off by more than 0.5 |
| coverage@60 | predictions and labels as old as 60 s are trials, the labels failures: f/(1 - f) labels per prediction |
| custom:NAME | the user's own counters |
| pairs/REVISION | requests that this stable revision and the canary answered; failures: their answers differ |
| pairs-settled/REVISION | of those that differ, the labelled ones; failures: only the canary's answer is wrong |
| pairs-canary/REVISION, pairs-stable/REVISION | labelled pairs; failures: this one's answer is wrong |
| pairs/REVISION@60, and so on | the same of the pairs that were counted at the age of 60 s: a sample of them |
| moves/REVISION:7 | pairs that differ and in which one answer is class 7; failures: the canary's is |
"""

from serin_operator.api.spec import Metric, MetricType

REQUESTS = "requests"
_EVERY_CLASS = "*"
_MACRO_F1 = "macro-f1"
_OF_CLASSES = (MetricType.PRECISION, MetricType.RECALL, MetricType.F1)
_LABELLED = (MetricType.ACCURACY, MetricType.REGRESSION, *_OF_CLASSES)


def labelled(metric: Metric) -> bool:
    """Whether its trials are predictions with a label."""
    return metric.type in _LABELLED


def macro(metric: Metric) -> bool:
    """Whether it is the plain average over all classes."""
    return metric.type in _OF_CLASSES and metric.label is None


def metric_key(metric: Metric, window: float) -> str:
    """Names what the metric counts. window: `analysis.label_window`, in seconds.

    For a macro average it stands for the keys that `class_of` accepts, and is none of them.
    """
    match metric.type:
        case MetricType.LATENCY:
            return f"{metric.type}@{metric.slower_than:g}"
        case MetricType.ACCURACY:
            return f"{metric.type}@{window:g}"
        case MetricType.REGRESSION:
            return f"{metric.type}@{metric.within:g}@{window:g}"
        case MetricType.PRECISION | MetricType.RECALL | MetricType.F1:
            return class_key(metric, _EVERY_CLASS if metric.label is None else metric.label, window)
        case MetricType.CUSTOM:
            return f"{metric.type}:{metric.name}"
        case MetricType.ERRORS | MetricType.RESTARTS:
            return metric.type.value


def class_key(metric: Metric, label: str, window: float) -> str:
    """Names the counts of one class for precision, recall or f1."""
    return f"{_of_classes(metric)}:{label}@{window:g}"


def class_of(key: str, metric: Metric, window: float) -> str | None:
    """The class that a key counts, if it is one of the keys of this macro average."""
    head, tail = f"{_of_classes(metric)}:", f"@{window:g}"
    if not (key.startswith(head) and key.endswith(tail) and len(key) >= len(head) + len(tail)):
        return None
    return key[len(head) : len(key) - len(tail)]


def coverage_key(window: float) -> str:
    """Names the count of predictions that are old enough for a label, and of their labels.

    A label may reach another pod than the one that predicted, so no pod can count predictions without one. Both are
    added up over the pods first: n - y predictions, y labels. There is no such count for window 0, where labels of
    young predictions are yet to come.
    """
    return f"coverage@{window:g}"


def pair_keys(stable: str, window: float = 0.0) -> tuple[str, str, str, str]:
    """Name the counts of the pairs with a stable revision: all, settled, and what is wrong in either arm."""
    where = f"{stable}@{window:g}" if window else stable
    return (f"pairs/{where}", f"pairs-settled/{where}", f"pairs-canary/{where}", f"pairs-stable/{where}")


def moves_key(stable: str, label: str) -> str:
    """Names the count of the pairs with a stable revision that differ and have this class; its start without one."""
    return f"moves/{stable}:{label}"


def _of_classes(metric: Metric) -> str:
    return _MACRO_F1 if macro(metric) and metric.type is MetricType.F1 else metric.type.value
