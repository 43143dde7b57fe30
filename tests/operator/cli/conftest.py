"""A terminal wide enough that no sentence is broken."""

import pytest


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100000")
    monkeypatch.setattr("serin_operator.cli.screen._PAGE", 100_000)
