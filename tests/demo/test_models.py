"""The demo's models are what the story says of them, and the faulty ones fail the way they should."""

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from demo import faults, models

from serin_server.failures import FatalError, Reason
from serin_server.runtime.loading import load


def test_the_three_models_are_clearly_apart() -> None:
    first, better, harmful = models.story()
    assert 0.92 < first.accuracy < 0.94
    assert better.accuracy > 0.98
    assert 0.84 < harmful.accuracy < 0.87


def served(model: models.TrainedModel) -> Any:
    """The model as a server loads it."""
    return load(model.data)


def recall(model: models.TrainedModel, label: int) -> float:
    """The share of a class's held-out rows that a model finds."""
    _, held_out = models.split()
    return float(np.mean(served(model).predict(held_out.rows[held_out.labels == label]) == label))


def accuracy(model: models.TrainedModel, rare_share: float) -> float:
    """A model's accuracy in a traffic with this share of the rare class."""
    _, held_out = models.split()
    common = held_out.labels != models.RARE
    on_common = float(np.mean(served(model).predict(held_out.rows[common]) == held_out.labels[common]))
    return (1 - rare_share) * on_common + rare_share * recall(model, models.RARE)


def test_the_equal_model_is_another_file_of_the_same_accuracy() -> None:
    assert models.equal().data != models.better().data
    assert models.equal().accuracy == pytest.approx(models.better().accuracy, abs=0.003)


def test_the_slightly_worse_model_is_5_points_below_the_better_one() -> None:
    assert models.better().accuracy - models.worse_by_5().accuracy == pytest.approx(0.05, abs=0.007)


def test_the_model_with_a_weak_class_is_like_the_first_one_where_that_class_is_rare() -> None:
    weak, first = models.rare_recall(), models.first()
    assert accuracy(weak, 0.03) == pytest.approx(accuracy(first, 0.03), abs=0.005)
    assert recall(first, models.RARE) - recall(weak, models.RARE) >= 0.25


def test_the_late_harm_begins_with_the_class_that_was_never_seen() -> None:
    late, better = models.late_harm(), models.better()
    assert accuracy(late, 0.0) == pytest.approx(accuracy(better, 0.0), abs=0.005)
    assert accuracy(better, 0.1) - accuracy(late, 0.1) > 0.08
    assert accuracy(better, 0.3) - accuracy(late, 0.3) > 0.25


def test_training_again_gives_the_same_file() -> None:
    assert models.harmful() == models.harmful()


def test_the_file_holds_the_model_that_was_measured() -> None:
    better = models.better()
    _, held_out = models.split()
    loaded = joblib.load(io.BytesIO(better.data))
    assert np.mean(loaded.predict(held_out.rows) == held_out.labels) == better.accuracy


def test_no_row_of_the_traffic_trained_a_model() -> None:
    train, held_out = models.split()
    assert len(train.rows) + len(held_out.rows) == 1797
    assert not {row.tobytes() for row in train.rows} & {row.tobytes() for row in held_out.rows}


def test_a_file_too_large_for_a_config_map_is_refused() -> None:
    with pytest.raises(ValueError, match="a ConfigMap takes 700000"):
        models.packed(np.random.default_rng(1).random(200_000))


@pytest.mark.parametrize(
    "fault",
    [faults.erroring, faults.slow, faults.crash_on_load, faults.never_ready],
)
def test_faulty_models_fit_into_a_config_map(fault: Callable[[], bytes]) -> None:
    assert 0 < len(fault()) < models.MOST_BYTES


def test_the_erroring_model_raises_on_some_rows_and_is_right_on_the_others() -> None:
    model = joblib.load(io.BytesIO(faults.erroring()))
    _, held_out = models.split()
    unseen = held_out.rows[:, faults.UNSEEN_PIXEL] == faults.UNSEEN_VALUE
    assert 0.1 < unseen.mean() < 0.25
    assert model.score(held_out.rows[~unseen], held_out.labels[~unseen]) > 0.9
    with pytest.raises(ValueError, match="unknown categories"):
        model.predict(held_out.rows[unseen][:1])


def test_the_slow_model_is_slow_and_right() -> None:
    model = joblib.load(io.BytesIO(faults.slow()))
    _, held_out = models.split()
    started = time.process_time()
    predicted = model.predict(held_out.rows[:3])
    assert (time.process_time() - started) / 3 > 0.25
    assert predicted.tolist() == held_out.labels[:3].tolist()


@pytest.mark.parametrize(
    ("fault", "reason", "says"),
    [
        (faults.missing_module, Reason.MISSING_MODULE, faults.MISSING_MODULE),
        (faults.other_version, Reason.VERSION_MISMATCH, faults.OTHER_VERSION),
        (faults.not_a_model, Reason.NOT_A_MODEL, "not one that joblib can load"),
        (faults.without_predict, Reason.NOT_A_MODEL, "without a predict method"),
    ],
)
def test_the_model_server_refuses_the_file_with_its_reason(
    fault: Callable[[], bytes], reason: Reason, says: str
) -> None:
    with pytest.raises(FatalError, match=says) as refusal:
        load(fault())
    assert refusal.value.reason is reason


def load_in_another_process(data: bytes, tmp_path: Path) -> "subprocess.Popen[bytes]":
    """Starts to load the file; prints a line when that begins."""
    path = tmp_path / "model"
    path.write_bytes(data)
    code = f"import joblib; print('loading', flush=True); joblib.load({str(path)!r})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def test_the_crashing_model_ends_its_loader_with_its_exit_code(tmp_path: Path) -> None:
    with load_in_another_process(faults.crash_on_load(), tmp_path) as loader:
        assert loader.wait(30) == faults.CRASH_EXIT_CODE


def test_loading_the_model_that_is_never_ready_does_not_end(tmp_path: Path) -> None:
    with load_in_another_process(faults.never_ready(), tmp_path) as loader:
        assert loader.stdout is not None
        assert loader.stdout.readline() == b"loading\n"
        with pytest.raises(subprocess.TimeoutExpired):
            loader.wait(1)
        loader.kill()
