"""Keys that are changed while servers run: no server refuses what another one of the same model signed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_server.failures import FatalError
from serin_server.monitor.classes import class_outcome
from serin_server.monitor.keys import LOOK_SECONDS, MOST_KEYS, SETTLE_SECONDS, Key, Keyring
from serin_server.monitor.tokens import Refusal, TokenRefusedError, Tokens

NOW = 1_800_000_000
FIRST, SECOND = b"the first key of all", b"the second of the keys"
STABLE = "0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A mounted Secret with its first key."""
    (tmp_path / "key").write_bytes(FIRST)
    return tmp_path / "key"


def add(path: Path, secret: bytes, made: int) -> Path:
    file = path.with_name(f"key-{made}")
    file.write_bytes(secret)
    return file


def server(path: Path) -> Tokens:
    return Tokens(Keyring.at(path), "m", STABLE)


def issue(tokens: Tokens, now: float) -> str:
    return tokens.issue([class_outcome(1)], now)[0]


def accepted(tokens: Tokens, token: str, now: float) -> bool:
    tokens.refresh(now)
    try:
        tokens.read(token)
    except TokenRefusedError as error:
        return error.refusal is not Refusal.FORGED
    return True


def signed_by(token: str, secret: bytes) -> bool:
    return accepted(Tokens(Keyring.of(secret), "m", STABLE), token, NOW)


def test_a_new_key_first_verifies_and_signs_when_all_have_it(path: Path) -> None:
    tokens = server(path)
    assert signed_by(issue(tokens, NOW), FIRST)
    add(path, SECOND, made=NOW)
    assert signed_by(issue(tokens, NOW + LOOK_SECONDS), FIRST)
    assert accepted(tokens, issue(Tokens(Keyring.of(SECOND), "m", STABLE), NOW), NOW + LOOK_SECONDS)
    assert signed_by(issue(tokens, NOW + SETTLE_SECONDS - 1), FIRST)
    assert signed_by(issue(tokens, NOW + SETTLE_SECONDS), SECOND)


def test_labels_of_the_old_key_count_until_it_is_removed(path: Path) -> None:
    tokens = server(path)
    early = issue(tokens, NOW)
    add(path, SECOND, made=NOW)
    late = NOW + 100 * 86400
    assert accepted(tokens, early, late)
    path.unlink()
    assert not accepted(tokens, early, late + LOOK_SECONDS)
    assert accepted(tokens, issue(tokens, late + LOOK_SECONDS), late + LOOK_SECONDS)


@given(st.lists(st.integers(0, SETTLE_SECONDS - LOOK_SECONDS), min_size=2, max_size=2), st.integers(0, 2000))
def test_servers_that_read_the_secret_at_different_times_accept_each_others_ids(delays: list[int], after: int) -> None:
    """A server sees the new key at most SETTLE_SECONDS - LOOK_SECONDS after it was made."""
    old, both = [Key(0, FIRST)], [Key(NOW, SECOND), Key(0, FIRST)]
    signer, reader = (Tokens(Keyring(both if after >= delay else old), "m", STABLE) for delay in delays)
    assert accepted(reader, issue(signer, NOW + after), NOW + after)


def test_a_lone_key_signs_however_new_it_is(path: Path) -> None:
    path.unlink()
    add(path, SECOND, made=NOW)
    assert signed_by(issue(server(path), NOW), SECOND)


def test_all_that_share_a_keyring_take_in_its_changes(path: Path) -> None:
    ring = Keyring.at(path)
    one, other = Tokens(ring, "m", STABLE), Tokens(ring, "m", STABLE)
    add(path, SECOND, made=NOW)
    late = NOW + SETTLE_SECONDS
    assert signed_by(issue(one, late), SECOND)
    assert signed_by(issue(other, late), SECOND)
    assert accepted(other, issue(one, late), late)


def test_the_directory_is_not_read_at_every_prediction(path: Path) -> None:
    ring = Keyring.at(path)
    first = ring.keys
    ring.look(NOW)
    add(path, SECOND, made=NOW)
    ring.look(NOW + LOOK_SECONDS - 1)
    assert ring.keys == first
    ring.look(NOW + LOOK_SECONDS)
    assert ring.keys == (Key(NOW, SECOND), *first)


def test_a_clock_that_goes_back_does_not_stop_the_looking(path: Path) -> None:
    ring = Keyring.at(path)
    ring.look(NOW)
    add(path, SECOND, made=NOW)
    ring.look(NOW - 86400)
    assert len(ring.keys) == 2


@pytest.mark.parametrize("broken", ["empty", "short"])
def test_keys_that_cannot_be_read_leave_those_that_were_there(
    broken: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = server(path)
    token = issue(tokens, NOW)
    if broken == "empty":
        path.unlink()
    else:
        add(path, b"short", made=NOW)
    for looks in range(1, 4):
        assert accepted(tokens, token, NOW + looks * LOOK_SECONDS)
    assert [record.message for record in caplog.records] == ["the keys of prediction ids stay as they are"]
    path.write_bytes(FIRST)
    path.with_name(f"key-{NOW}").unlink(missing_ok=True)
    add(path, SECOND, made=NOW + 5)
    assert accepted(tokens, issue(Tokens(Keyring.of(SECOND), "m", STABLE), NOW), NOW + 4 * LOOK_SECONDS)


@pytest.mark.parametrize("name", ["key-1", "key-18000000001", "key-old", "key.bak", "keys-1800000000", "..data"])
def test_other_files_beside_the_key_are_none_of_its(name: str, path: Path) -> None:
    path.with_name(name).write_bytes(SECOND)
    assert Keyring.at(path).keys == (Key(0, FIRST),)


def test_a_start_with_a_bad_key_fails_and_names_it(path: Path) -> None:
    add(path, b"short", made=NOW)
    with pytest.raises(FatalError, match=f"key-{NOW} has 5 bytes, at least 16"):
        Keyring.at(path)


def test_the_newest_keys_are_read(path: Path) -> None:
    for age in range(MOST_KEYS + 3):
        add(path, SECOND, made=NOW - age)
    assert [key.made for key in Keyring.at(path).keys] == [NOW - age for age in range(MOST_KEYS)]


def test_without_a_path_each_process_has_a_key_of_its_own() -> None:
    token = issue(Tokens(Keyring.at(None), "m", STABLE), NOW)
    assert not accepted(Tokens(Keyring.at(None), "m", STABLE), token, NOW)
