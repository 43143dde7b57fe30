"""The demo's objects: data that arrives whole, and pods that the strictest policy admits."""

import base64
import json
from typing import Any

import numpy as np
from demo import manifests, models

ROWS = models.Digits(np.array([[0.0, 16.0], [1.5, 2.0]]), np.array([3, 9]))


def pod_specs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    specs = [one["spec"].get("template", one)["spec"] for one in objects if one["kind"] in ("Pod", "Deployment")]
    assert specs
    return specs


def test_the_store_serves_the_bytes_of_each_model_under_its_uri() -> None:
    objects = manifests.model_store({"first.joblib": b"\x80\x00", "better.joblib": b"\xff"}, "demo")
    files = {
        name: base64.b64decode(data)
        for one in objects
        if one["kind"] == "ConfigMap"
        for name, data in one["binaryData"].items()
    }
    assert files == {"first.joblib": b"\x80\x00", "better.joblib": b"\xff"}
    [service] = [one for one in objects if one["kind"] == "Service"]
    assert manifests.model_uri("first") == f"http://{service['metadata']['name']}/first.joblib"
    [pod] = pod_specs(objects)
    mounted = [source["configMap"]["name"] for source in pod["volumes"][0]["projected"]["sources"]]
    assert mounted == ["model-first.joblib", "model-better.joblib"]


def test_the_traffic_pod_gets_rows_with_their_labels() -> None:
    data, pod = manifests.traffic("digits", ROWS, "demo", rps=2.5, options=["--feedback-delay=1"])
    examples = json.loads(data["data"]["rows.json"])
    assert examples == [{"row": [0.0, 16.0], "label": 3}, {"row": [1.5, 2.0], "label": 9}]
    arguments = pod["spec"]["containers"][0]["args"]
    assert {"--url=http://digits", "--model=digits", "--rps=2.5", "--feedback-delay=1"} <= set(arguments)


def test_the_rows_of_the_demo_fit_into_a_config_map() -> None:
    _, held_out = models.split()
    data, _ = manifests.traffic("digits", held_out, "demo", rps=1)
    assert len(json.dumps(data)) < 1_000_000


def test_every_pod_is_restricted() -> None:
    objects = manifests.model_store({"first.joblib": b"x"}, "demo") + manifests.traffic("digits", ROWS, "demo", rps=1)
    for spec in pod_specs(objects):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_deployment_names_the_model_by_its_version() -> None:
    spec = manifests.model_deployment("digits", "better", "demo")["spec"]
    assert spec["model"] == {"uri": "http://model-store/better.joblib", "version": "better"}
    weights = [step["weight"] for step in spec["rollout"]["steps"]]
    assert weights == sorted(set(weights))
