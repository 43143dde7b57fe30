"""The payload log's files: whole lines, and never more of them than the bound."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_server.payload_log import files
from serin_server.payload_log.files import BoundedFiles

BOUND = 16_384
FILE = BOUND // 8


def total(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*.jsonl"))


def lines(directory: Path) -> list[bytes]:
    """All lines, the oldest file first."""
    found = sorted(directory.glob("*.jsonl"), key=lambda file: (file.stat().st_mtime, file.name))
    return [line for file in found for line in file.read_bytes().splitlines(keepends=True)]


@given(st.lists(st.integers(1, 3000), max_size=40))
def test_the_bound_holds_after_every_write_and_lines_stay_whole(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text) / "not made yet"
        log = BoundedFiles(directory, BOUND)
        written = []
        for number, size in enumerate(sizes):
            written.append(b"%05d" % number + b"x" * size + b"\n")
            log.write(written[-1])
            assert total(directory) <= BOUND
        log.close()
        found = lines(directory) if sizes else []
        assert set(found) <= set(written)
        if written:
            assert written[-1] in found
        assert sum(map(len, found)) >= min(sum(map(len, written)), BOUND // 2)


def age(directory: Path) -> None:
    """Let an hour pass for every file that is there."""
    for file in directory.iterdir():
        stat = file.stat()
        os.utime(file, (stat.st_atime - 3600, stat.st_mtime - 3600))


def test_the_oldest_make_room_and_the_rest_of_the_directory_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "others.jsonl"
    other.write_bytes(b"x" * 10 * BOUND)
    log = BoundedFiles(tmp_path, BOUND)
    for number in range(20):
        age(tmp_path)
        log.write(b"%d " % number + b"x" * FILE + b"\n")
    log.close()
    found = [line.split()[0] for line in lines(tmp_path) if line[:1].isdigit()]
    assert found == [b"%d" % number for number in range(20 - len(found), 20)]
    assert len(found) >= 6
    assert other.stat().st_size == 10 * BOUND


def test_a_process_whose_file_made_room_for_anothers_begins_a_new_one(tmp_path: Path) -> None:
    quiet, busy = BoundedFiles(tmp_path, BOUND), BoundedFiles(tmp_path, BOUND)
    quiet.write(b"early\n")
    for _ in range(20):
        age(tmp_path)
        busy.write(b"x" * FILE + b"\n")
    assert b"early\n" not in lines(tmp_path)
    quiet.write(b"late" + b"x" * FILE + b"\n")
    quiet.close()
    assert any(line.startswith(b"late") for line in lines(tmp_path))


def test_several_processes_exceed_the_bound_by_a_step_each_at_most(tmp_path: Path) -> None:
    logs = [BoundedFiles(tmp_path, BOUND) for _ in range(4)]
    for number in range(400):
        logs[number * 7 % 4].write(b"x" * 99 + b"\n")
        assert total(tmp_path) <= BOUND + 3 * FILE // 16


def test_a_file_ends_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr("serin_server.payload_log.files.time.time", lambda: now)
    log = BoundedFiles(tmp_path, BOUND)
    log.write(b"a\n")
    now += files.OLDEST_SECONDS
    log.write(b"b\n")
    now += 1
    log.write(b"c\n")
    assert sorted(file.read_bytes() for file in tmp_path.iterdir()) == [b"a\nb\n", b"c\n"]
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names[0].startswith("20270115T080000Z-")


def test_only_the_owner_and_the_group_may_read(tmp_path: Path) -> None:
    log = BoundedFiles(tmp_path, BOUND)
    log.write(b"a\n")
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o007 == 0


def test_a_volume_that_fails_is_told_and_the_next_write_begins_anew(tmp_path: Path) -> None:
    directory = tmp_path / "volume"
    directory.write_text("not a directory")
    log = BoundedFiles(directory, BOUND)
    for _ in range(2):
        with pytest.raises(OSError, match=r"File exists|Not a directory"):
            log.write(b"a\n")
    directory.unlink()
    log.write(b"b\n")
    log.close()
    assert lines(directory) == [b"b\n"]


def test_what_exceeds_the_bound_by_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="more than the bound"):
        BoundedFiles(tmp_path, BOUND).write(b"x" * (BOUND + 1))
