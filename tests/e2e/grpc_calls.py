"""Steady calls over gRPC, from a pod of the model server's image: it has the library and the messages."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from demo.environment import Cluster, image
from demo.manifests import CONTAINER_SECURITY, client_pod
from demo.models import split
from tests.e2e.deployments import ModelDeployment

# Calls `target` at a steady rate, with this host name for its :authority, and writes what came of it to a file.
_CALL = """
import asyncio, collections, json, os, sys, time
import grpc
from serin_server.grpc_service.messages.open_inference_grpc_pb2 import ModelInferRequest

target, authority, model, rps, row = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), json.loads(sys.argv[5])
request = ModelInferRequest(model_name=model)
tensor = request.inputs.add(name="x", datatype="FP64", shape=[1, len(row)])
tensor.contents.fp64_contents.extend(row)
message = request.SerializeToString()
failed, answered = collections.Counter(), collections.Counter()

async def ask(infer):
    call = infer(message, timeout=10)
    try:
        await call
        answered[dict(await call.trailing_metadata())["x-serin-revision"]] += 1
    except grpc.aio.AioRpcError as error:
        failed[f"{error.code().name}: {error.details()}"] += 1

def tell():
    with open("/tmp/part", "w") as file:
        json.dump({"answered": answered, "failed": failed}, file)
    os.replace("/tmp/part", "/tmp/counts.json")

async def main():
    options = [("grpc.enable_retries", 0), *([("grpc.default_authority", authority)] if authority else [])]
    async with grpc.aio.insecure_channel(target, options) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        under_way, due = set(), time.monotonic()
        while True:
            task = asyncio.create_task(ask(infer))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            tell()
            due += 1 / rps
            await asyncio.sleep(max(0.0, due - time.monotonic()))

asyncio.run(main())
"""


@dataclass
class Calls:
    """A client that goes on calling one ModelDeployment."""

    cluster: Cluster
    namespace: str
    pod: str

    def counts(self) -> dict[str, dict[str, int]]:
        """Calls so far: `answered` by revision, and `failed` by status and words."""
        place = ("exec", "-n", self.namespace, self.pod, "--", "cat", "/tmp/counts.json")
        found: dict[str, dict[str, int]] = json.loads(self.cluster.kubectl(*place))
        return found

    def answered(self, revision: str) -> int:
        return self.counts()["answered"].get(revision, 0)

    def wait_for(self, calls: int, seconds: float = 60) -> None:
        """Until so many more calls are answered."""
        wanted, deadline = sum(self.counts()["answered"].values()) + calls, time.monotonic() + seconds
        while sum((counts := self.counts())["answered"].values()) < wanted:
            assert time.monotonic() < deadline, f"{calls} answers did not come within {seconds} s: {counts}"
            time.sleep(0.5)


@contextmanager
def calling(mdep: ModelDeployment, target: str, rps: float, authority: str = "") -> Iterator[Calls]:
    """Call this address until the block ends, which no call may have failed in. authority: the host name to ask for."""
    calls = Calls(mdep.cluster, mdep.namespace, f"calls-{mdep.name}")
    row = json.dumps(split()[1].rows[0].tolist())
    mdep.cluster.apply([_pod(calls, [target, authority, mdep.name, f"{rps:g}", row])])
    try:
        mdep.cluster.kubectl(
            *("wait", "-n", calls.namespace, "--for=condition=Ready", f"pod/{calls.pod}", "--timeout=90s")
        )
        yield calls
        assert calls.counts()["failed"] == {}
    finally:
        mdep.cluster.kubectl("delete", "pod", calls.pod, "-n", calls.namespace, "--wait=false")


def _pod(calls: Calls, arguments: list[str]) -> dict[str, Any]:
    caller = {
        "name": "calls",
        "image": image("model-server"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/venv/bin/python", "-c", _CALL, *arguments],
        "readinessProbe": {"exec": {"command": ["cat", "/tmp/counts.json"]}, "periodSeconds": 1},
        "securityContext": CONTAINER_SECURITY,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return client_pod(calls.pod, calls.namespace, caller, {"name": "tmp", "emptyDir": {}})
