"""The payload log of the real server: what retraining finds after the server has ended."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.model_server.serving import ROOT, infer, infer_body, metric, outputs, serving, serving_settings, wait_until

from serin_server.cli import run
from serin_server.failures import FatalError
from serin_server.payload_log.settings import PayloadLogSettings
from serin_server.serve import serve

pytestmark = pytest.mark.process

SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_and_labels_can_be_joined_after_the_drain(processes: int, iris: Path, tmp_path: Path) -> None:
    directory = tmp_path / "log"
    options = ["--payload-log", str(directory), "--payload-log-exclude", "1", "--drain-seconds", "0.1"]
    with serving(iris, *options, "--processes", str(processes)) as server, server.client() as client:
        answers = [infer(client, infer_body(SETOSA, VIRGINICA)) for _ in range(3)]
        ids = [prediction_id for answer in answers for prediction_id in outputs(answer)["prediction_id"]]
        labels = [{"prediction_id": prediction_id, "label": 2} for prediction_id in ids[1:]]
        assert client.post("/v2/models/m/feedback", json=labels).json()["accepted"] == 5
        assert metric(client, "serin_payload_log_dropped_total") == 0
        wait_until(lambda: metric(client, "serin_payload_log_records_total") == 11)
        infer(client, infer_body(SETOSA))
        server.terminate()
        assert server.process.wait(10) == 0
    assert len(list(directory.iterdir())) == processes
    rows = training_set(directory)
    assert list(rows.columns) == ["0", "2", "3", "label"]
    assert rows.to_numpy().tolist() == [[6.3, 6.0, 2.5, 2], *[[5.1, 1.4, 0.2, 2], [6.3, 6.0, 2.5, 2]] * 2]


def training_set(directory: Path) -> pd.DataFrame:
    """Runs the example of the documentation."""
    text = (ROOT / "docs" / "model-server.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "prediction_id" in block)
    names: dict[str, Any] = {}
    exec(example.replace('"/payloads/iris"', repr(str(directory))), names)
    training: pd.DataFrame = names["training"]
    return training


def test_a_feature_that_the_model_does_not_have_ends_the_start(iris: Path, tmp_path: Path) -> None:
    named = PayloadLogSettings(tmp_path, exclude=("age",))
    settings = replace(serving_settings(iris), sha256=None, key_path=None, payload_log=named)
    with pytest.raises(FatalError, match="names the feature 'age', which the model lacks"):
        serve(settings)


@pytest.mark.parametrize(
    "options",
    [
        ("--payload-log-sample", "0"), ("--payload-log-sample", "1.5"), ("--payload-log-sample", "nan"),
        ("--payload-log-max-mib", "0"), ("--payload-log-no-inputs", "--payload-log-exclude", "0"),
        ("--payload-log-include", "0", "--payload-log-exclude", "1"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["serve", "model", "--payload-log", "log", *options])
    assert "--payload-log" in capsys.readouterr().err.partition("error:")[2]
