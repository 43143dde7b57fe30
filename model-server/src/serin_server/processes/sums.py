"""The sum of several processes' metrics, in Prometheus' text format."""

from collections.abc import Sequence

from serin_server.monitor.exposition import number

# True of the first process alone: evidence takes the start time for the pod's.
_OF_THE_FIRST = (b"process_start_time_seconds", b"process_max_fds")


def summed(expositions: Sequence[bytes]) -> bytes:
    """Add up every series over the expositions, each as `Metrics.render` writes it.

    Counters, histograms and gauges of what is open, queued or in flight add up; the server has no others but those of
    the first process.
    """
    heads: dict[bytes, list[bytes]] = {}  # in the order in which families first appear
    totals: dict[bytes, dict[bytes, float]] = {}
    for index, exposition in enumerate(expositions):
        family = b""
        for line in exposition.splitlines():
            if line.startswith(b"# "):
                family = line.split(b" ", 3)[2]
                lines = heads.setdefault(family, [])
                totals.setdefault(family, {})
                if line not in lines:
                    lines.append(line)
                continue
            series, _, value = line.rpartition(b" ")
            values = totals[family]
            if series not in values:
                values[series] = float(value)
            elif index == 0 or family not in _OF_THE_FIRST:
                values[series] += float(value)
    pieces = []
    for family, lines in heads.items():
        pieces += lines
        pieces += (b"%s %s" % (series, number(value).encode()) for series, value in totals[family].items())
    return b"\n".join(pieces) + b"\n"
