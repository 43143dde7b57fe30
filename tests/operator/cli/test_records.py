"""The file of recorded counts: both forms alike, and what is wrong told with its line."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.cli.errors import InputError
from serin_operator.cli.records import COLUMNS, Recording, read

HEADER = "time,metric,arm,failures,trials"


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def blocks(recording: Recording) -> list[list[list[list[int]]]]:
    return [recording.scrape(number).tolist() for number in range(recording.most_scrapes)]


def test_rows_are_put_together_by_series_scrape_metric_and_arm() -> None:
    recording = read(
        "counts.csv",
        lines(
            "series,time,metric,arm,failures,trials\n"
            "a,0,errors,canary,1,10\n"
            "a,0,errors,stable,2,20\n"
            "b,100,errors,stable,3,30\n"
            "a,60,errors,canary,4,40\n"
            "a,30,latency,stable,5,50\n"
        ),
    )
    assert recording.series == ("a", "b")
    assert recording.metrics == ("errors", "latency")
    assert recording.times == ((0.0, 30.0, 60.0), (100.0,))
    nothing = [0, 0, 0, 0]
    assert blocks(recording) == [
        [[[1, 10, 2, 20], nothing], [[0, 0, 3, 30], nothing]],
        [[nothing, [0, 0, 5, 50]], [nothing, nothing]],
        [[[4, 40, 0, 0], nothing], [nothing, nothing]],
    ]
    assert recording.measured().tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("written", "seconds", "shown"),
    [
        ("30", 30.0, 30),
        ("30.0", 30.0, 30),
        ("0.5", 0.5, 0.5),
        ("-5", -5.0, -5),
        ("1e3", 1000.0, 1000),
        ("2026-03-01T12:00:00Z", 1772366400.0, "2026-03-01T12:00:00Z"),
        ("2026-03-01T13:00:00.5+01:00", 1772366400.5, "2026-03-01T13:00:00.5+01:00"),
    ],
)
def test_times_are_seconds_or_rfc_3339_and_shown_as_written(written: str, seconds: float, shown: object) -> None:
    recording = read("counts.csv", lines(f"{HEADER}\n{written},errors,canary,0,1\n"))
    assert recording.times == ((seconds,),)
    assert recording.shown == ((shown,),)


@pytest.mark.parametrize("written", ["3", " 3 ", "3.0", "3e0"])
def test_counts_may_be_written_as_spreadsheets_write_them(written: str) -> None:
    recording = read("counts.csv", lines(f"{HEADER}\n0,errors,canary,{written},10\n"))
    assert recording.scrape(0)[0, 0].tolist() == [3, 10, 0, 0]


def test_columns_come_in_any_order_and_blank_lines_and_a_byte_order_mark_are_skipped() -> None:
    text = '\n\ufeff arm , trials,failures,"metric",time\n\ncanary,10,3,errors,0\n\n'
    assert read("counts.csv", lines(text)).scrape(0)[0, 0].tolist() == [3, 10, 0, 0]


def test_series_of_jsonl_keep_their_kind() -> None:
    row = {"time": 0, "metric": "errors", "arm": "canary", "failures": 0, "trials": 1}
    recording = read("counts.jsonl", [json.dumps(row | {"series": series}) for series in (7, "7")])
    assert recording.series == (7, "7")


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", None, "no rows; write one per scrape, metric and arm"),
        ("\n\n", None, "no rows"),
        (f"{HEADER}\n", None, "no rows"),
        ("time,metric,arm,failures\n0,errors,canary,1\n", 1, "column trials is missing"),
        (f"{HEADER},colour\n0,errors,canary,1,2,red\n", 1, "unknown column 'colour'"),
        (f"{HEADER},arm\n0,errors,canary,1,2,canary\n", 1, "column arm comes twice"),
        (f"{HEADER}\n0,errors,canary,1\n", 2, "4 values under 5 columns"),
        (f'{HEADER}\n0,"errors\n', 2, "not CSV"),
        (f"{HEADER}\n0,errors,kanary,1,2\n", 2, "arm is 'kanary'; write canary or stable"),
        (f"{HEADER}\n0,,canary,1,2\n", 2, "metric is ''; write its name"),
        (f"{HEADER}\n0,errors,canary,-1,2\n", 2, "failures is -1"),
        (f"{HEADER}\n0,errors,canary,3,2\n", 2, "3 failures in 2 trials"),
        (f"{HEADER}\n0,errors,canary,nan,2\n", 2, "failures is 'nan'; write a whole number"),
        (f"{HEADER}\n0,errors,canary,1,inf\n", 2, "trials is 'inf'; write a whole number"),
        (f"{HEADER}\n0,errors,canary,,2\n", 2, "failures is ''; write a whole number"),
        (f"{HEADER}\n0,errors,canary,1.5,2\n", 2, "failures is '1.5'; write a whole number"),
        (f"{HEADER}\n0,errors,canary,1,1e18\n", 2, "trials is 1000000000000000000; write what"),
        (f"{HEADER}\nnoon,errors,canary,1,2\n", 2, "time is 'noon'; write seconds or RFC 3339"),
        (f"{HEADER}\nnan,errors,canary,1,2\n", 2, "time is nan; write seconds or RFC 3339"),
        (f"{HEADER}\n2026-03-01T12:00:00,errors,canary,1,2\n", 2, "has no time zone"),
        (f"{HEADER}\n30,errors,canary,1,2\n30,errors,canary,1,2\n", 3, "a second row for time 30"),
        (f"{HEADER}\n30,errors,canary,1,2\n\n0,errors,canary,1,2\n", 4, "time 0 is not later"),
        ('{"time": 0}\n', 1, "column metric, arm, failures, trials is missing"),
        ('\n{"time": 0,\n', 2, "not JSON"),
        ('{"time": 0, "metric": "e", "arm": "canary", "failures": 0, "trials": 1}\n[]\n', 2, "[] is not an object"),
        ('{"time": 0, "metric": 5, "arm": "canary", "failures": 0, "trials": 1}\n', 1, "metric is 5"),
        ('{"time": 0, "metric": "e", "arm": ["canary"], "failures": 0, "trials": 1}\n', 1, "arm is ['canary']"),
        ('{"time": true, "metric": "e", "arm": "canary", "failures": 0, "trials": 1}\n', 1, "time is True"),
        ('{"time": null, "metric": "e", "arm": "canary", "failures": 0, "trials": 1}\n', 1, "time is None"),
        ('{"time": 0, "metric": "e", "arm": "canary", "failures": true, "trials": 1}\n', 1, "failures is True"),
        ('{"time": 0, "metric": "e", "arm": "canary", "failures": NaN, "trials": 1}\n', 1, "failures is nan"),
        (
            '{"time": 0, "metric": "e", "arm": "canary", "failures": 0, "trials": 1, "series": 1.5}\n',
            1,
            "series is 1.5; write text or a whole number",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int | None, told: str) -> None:
    with pytest.raises(InputError) as raised:
        read("counts", lines(text))
    message = str(raised.value)
    assert told in message
    assert message.startswith("counts: " if line is None else f"counts, line {line}: ")


def test_times_need_only_rise_within_one_metric_and_arm() -> None:
    text = f"{HEADER}\n0,errors,canary,1,2\n30,errors,canary,1,2\n0,errors,stable,1,2\n30,errors,stable,0,2\n"
    assert blocks(read("counts.csv", lines(text))) == [[[[1, 2, 1, 2]]], [[[1, 2, 0, 2]]]]


Key = tuple[str, int, str, bool]  # series, time, metric, whether it is of the canary
counts = st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda pair: (min(pair), max(pair)))
keys = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 5), st.sampled_from(["x", "y"]), st.booleans())


@given(st.dictionaries(keys, counts, min_size=1))
def test_no_count_is_lost_and_csv_and_jsonl_say_the_same(table: dict[Key, tuple[int, int]]) -> None:
    records = [
        dict(zip(COLUMNS, (time, metric, "canary" if canary else "stable", *found, series), strict=True))
        for (series, time, metric, canary), found in sorted(table.items(), key=lambda item: item[0][1])
    ]
    as_csv = [",".join(COLUMNS) + "\n", *(",".join(map(str, record.values())) + "\n" for record in records)]
    one, other = read("x", as_csv), read("x", [json.dumps(record) for record in records])
    assert (one.series, one.metrics, one.times, one.shown) == (other.series, other.metrics, other.times, other.shown)
    assert blocks(one) == blocks(other)
    for (series, time, metric, canary), expected in table.items():
        rollout = one.series.index(series)
        block = one.scrape(one.times[rollout].index(time))[rollout, one.metrics.index(metric)]
        assert tuple(np.split(block, 2)[0 if canary else 1].tolist()) == expected
