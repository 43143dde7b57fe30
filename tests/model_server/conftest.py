"""Servers that tests share: a process takes a second to start."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from tests.model_server.serving import Server, save, serving


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A logistic regression on the four measures of irises, classes 0, 1 and 2."""
    features, classes = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(features, np.asarray(classes))
    return save(model, tmp_path_factory.mktemp("iris") / "model")


@pytest.fixture(scope="session")
def iris_server(iris: Path) -> Iterator[Server]:
    with serving(iris, "--max-body-bytes", "100000") as server:
        yield server


@pytest.fixture
def client(iris_server: Server) -> Iterator[httpx.Client]:
    with iris_server.client() as client:
        yield client
