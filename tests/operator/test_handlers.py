"""What Kopf is told to do while the API server is away."""

from itertools import islice

from serin_operator.handlers import Endless


def test_an_api_server_that_is_away_is_asked_for_ever_and_soon_after_it_is_back() -> None:
    waits = Endless()
    for _ in range(2):  # every request begins anew
        seconds = list(islice(waits, 1000))
        assert len(seconds) == 1000
        assert 0 < min(seconds) < max(seconds) <= 5
