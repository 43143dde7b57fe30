"""The payload log on a claim: it holds what clients sent, less what it was told to leave out, and nothing else."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo import models
from demo.environment import Cluster
from tests.e2e.calls import label, predict
from tests.e2e.claims import claim_on_the_node, on_the_node
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import ModelDeployment

CLAIM = "payloads"
SECRET_FEATURES = ["0", "63"]
ROWS = models.split()[1].rows[:200].tolist()
SAMPLE = 0.5
# Six standard deviations around half of the rows: one run in a hundred million has fewer or more.
FEWEST, MOST = 57, 143

Record = dict[str, Any]
Records = Callable[[str], list[Record]]


@pytest.fixture(scope="module")
def written(cluster: Cluster, namespace: str, tools_namespace: str) -> Iterator[Records]:
    """What lies on the claim `payloads` for a ModelDeployment, every line of it."""
    fill = "chown 65532:65532 . && chmod 700 ."
    with claim_on_the_node(cluster, tools_namespace, namespace, CLAIM, "ReadWriteMany", fill) as directory:

        def read(name: str) -> list[Record]:
            printed = on_the_node(cluster, tools_namespace, f"find {directory}/{name} -type f -exec cat {{}} +")
            return [json.loads(line) for line in printed.splitlines()]

        yield read


@pytest.fixture
def logged(new_model_deployment: NewModelDeployment) -> Iterator[Callable[..., ModelDeployment]]:
    """A ModelDeployment of two pods that serves, with these settings of the payload log."""
    made = []

    def serve(name: str, **settings: Any) -> ModelDeployment:
        mdep = new_model_deployment(name)
        made.append(mdep)
        mdep.spec["server"] = {"replicas": 2, "payloadLog": {"claim": CLAIM, **settings}}
        mdep.wait_serving(mdep.serve("first"))
        return mdep

    yield serve
    for mdep in made:
        mdep.delete(wait=False)


def send(mdep: ModelDeployment) -> tuple[dict[str, list[float]], dict[str, int], dict[str, int]]:
    """Rows to each pod, and a label for every other of them to the other pod: rows, answers and labels by id."""
    first, second = sorted(mdep.server_pods(mdep.status["stable"]["revision"]))
    rows: dict[str, list[float]] = {}
    answers: dict[str, int] = {}
    labels: dict[str, int] = {}
    for start, (pod, other) in zip(range(0, len(ROWS), 50), [(first, second), (second, first)] * 2, strict=True):
        part = ROWS[start : start + 50]
        outputs = predict(mdep, part, pod)
        ids = outputs["prediction_id"]
        rows |= dict(zip(ids, part, strict=True))
        answers |= dict(zip(ids, outputs["predict"], strict=True))
        told = {key: place % 10 for place, key in enumerate(ids[::2])}
        assert label(mdep, told, other) == {"accepted": len(told), "duplicates": 0, "refused": []}
        labels |= told
    return rows, answers, labels


def wait_for(read: Records, name: str, enough: Callable[[list[Record]], bool]) -> list[Record]:
    """The records, once there are as many as are to come."""
    deadline = time.monotonic() + 30
    while not enough(records := read(name)):
        assert time.monotonic() < deadline, f"{len(records)} records are there: {records[:3]}"
        time.sleep(1)
    return records


def test_all_that_clients_sent_is_on_the_claim_less_what_is_excluded(
    logged: Callable[..., ModelDeployment], written: Records
) -> None:
    mdep = logged("kept", sample=1, exclude=SECRET_FEATURES)
    rows, answers, labels = send(mdep)
    records = wait_for(written, "kept", lambda found: len(found) >= len(rows) + len(labels))
    predictions = [one for one in records if "inputs" in one]
    assert {one["prediction_id"]: one["label"] for one in records if "label" in one} == labels
    assert {one["prediction_id"]: one["prediction"] for one in predictions} == answers
    told = {str(place) for place in range(64)} - set(SECRET_FEATURES)
    for one in predictions:
        sent = rows[one["prediction_id"]]
        assert one["inputs"] == {name: sent[int(name)] for name in told}
        assert one["revision"] == mdep.status["stable"]["revision"]
        assert (one["model"], one["version"], one["attempt"], one["sample"]) == ("kept", "first", "first", 1)
    assert len(records) == len(rows) + len(labels), "something is there twice"


def test_a_sample_without_inputs_has_only_answers_and_the_labels_that_belong_to_them(
    logged: Callable[..., ModelDeployment], written: Records
) -> None:
    mdep = logged("sampled", sample=SAMPLE, include=[])
    _, answers, labels = send(mdep)
    pods = mdep.server_pods(mdep.status["stable"]["revision"])
    mdep.delete()  # the pods write what waits before they end
    records = written("sampled")
    predictions = {one["prediction_id"]: one for one in records if "prediction" in one}
    assert FEWEST <= len(predictions) <= MOST
    assert {key: one["prediction"] for key, one in predictions.items()} == {key: answers[key] for key in predictions}
    assert all(one["inputs"] == {} and one["sample"] == SAMPLE for one in predictions.values())
    told = {one["prediction_id"]: one["label"] for one in records if "label" in one}
    assert told == {key: value for key, value in labels.items() if key in predictions}
    assert len(records) == len(predictions) + len(told)
    assert len(pods) == 2
