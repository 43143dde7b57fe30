"""What was due while the whole machine stood nearly still is set aside, by when it was due and by nothing else."""

from bench.server.stalls import Stalls, calm

_USUAL = 20e-6
_EVERY = 0.002


def samples(slow: range) -> list[tuple[float, float]]:
    """Half a second of them, those of this range several times slower."""
    return [(number * _EVERY, _USUAL * (8 if number in slow else 1)) for number in range(250)]


def test_what_is_due_near_a_slow_moment_is_set_aside() -> None:
    stall = samples(range(100, 110))  # from 0.200 to 0.218
    moments = [0.0, 0.189, 0.191, 0.2, 0.21, 0.218, 0.267, 0.269, 0.4]
    assert calm(stall, moments) == [True, True, False, False, False, False, False, True, True]


def test_without_a_slow_moment_all_is_calm() -> None:
    assert all(calm(samples(range(0)), [0.0, 0.1, 0.5]))
    assert all(calm([], [0.0]))


def test_a_piece_of_arithmetic_is_measured() -> None:
    stalls = Stalls()
    for _ in range(50):
        stalls.sample()
    assert len(stalls.calm([0.0])) == 1
    assert all(taken > 0 for _, taken in stalls._samples)
