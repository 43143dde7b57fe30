"""A shadow with all but a cluster: Envoy, two model servers, the courier, the scrape and the verdict, under traffic."""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from bench.router.loopback import on_loopback
from demo import models
from tests.loopback import ConfigMapVolume, envoy, free_port
from tests.model_server.serving import KEY, served
from tests.operator.definition import make_spec
from tests.operator.observe.http import pod
from tests.router.grpc_upstream import INFER
from tests.router.harness import CANARY, OWNER, STABLE, TRAFFIC

from serin_operator.api.spec import Analysis
from serin_operator.build import envoy as config
from serin_operator.build import listeners
from serin_operator.decide import analysis
from serin_operator.decide.analysis import Judgement
from serin_operator.decide.observed import Route, Snapshot
from serin_operator.decide.verdict import Action
from serin_operator.observe import courier, scrape
from serin_operator.observe.courier import carry
from serin_operator.observe.snapshot import look
from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2

pytestmark = pytest.mark.process

HOSTS = {STABLE: "127.0.0.2", CANARY: "127.0.0.3"}
PODS = [pod(f"pod-{revision}", host, revision=revision) for revision, host in HOSTS.items()]
METRICS = [{"name": "errors", "margin": 0.02}, {"name": "accuracy", "margin": 0.02}]
SPEC = make_spec(analysis={"metrics": METRICS}).analysis
AGED = make_spec(analysis={"metrics": METRICS, "labelWindow": "10s"}).analysis
AT_ONCE = 16
LABELLED = 0.25  # of the requests


@contextlib.contextmanager
def server(revision: str, model: bytes, port: int, grpc_port: int, directory: Path) -> Iterator[None]:
    """A model server as the operator starts it, at the revision's own address."""
    path, key = directory / revision, directory / "key"
    path.write_bytes(model)
    key.write_bytes(KEY)
    digest = hashlib.sha256(model).hexdigest()
    options = [
        *("serve", "--model-name", "iris", "--model-version", "v1", "--revision", revision, "--sha256", digest),
        *("--model-path", str(path), "--key-path", str(key), "--host", HOSTS[revision], "--port", str(port)),
        *("--grpc-port", str(grpc_port)),
    ]
    with served(*options):
        yield


@dataclass
class Shadow:
    """Traffic of handwritten digits through the router, and an operator's looks at what it shows."""

    session: aiohttp.ClientSession
    url: str
    channel: grpc.aio.Channel | None = None  # for inferences by gRPC
    spec: Analysis = SPEC
    asked: int = 0
    labelled: int = 0
    heard: set[str] = field(default_factory=set)
    places: courier.Places = field(default_factory=dict)

    async def some(self, number: int, rng: np.random.Generator) -> None:
        """So many requests, a few at a time, and the labels of a part of them."""
        _, held_out = models.split()
        chosen = rng.integers(0, len(held_out.rows), number)
        gate = asyncio.Semaphore(AT_ONCE)
        labels: list[dict[str, Any]] = []

        async def one(index: int) -> None:
            row = held_out.rows[index].tolist()
            async with gate:
                identity, revision = await (self._ask(row) if self.channel is None else self._call(self.channel, row))
            self.asked += 1
            self.heard.add(revision)
            if rng.random() < LABELLED:
                labels.append({"prediction_id": identity, "label": int(held_out.labels[index])})

        await asyncio.gather(*(one(index) for index in chosen))
        async with self.session.post(f"{self.url}/feedback", json=labels) as answer:
            assert (await answer.json())["accepted"] == len(labels)
        self.labelled += len(labels)

    async def _ask(self, row: list[float]) -> tuple[str, str]:
        """One inference over HTTP: its prediction id, and whose answer it is. Raises for an error."""
        tensor = {"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}
        async with self.session.post(f"{self.url}/infer", json={"inputs": [tensor]}) as answer:
            answer.raise_for_status()
            outputs = {output["name"]: output["data"] for output in (await answer.json())["outputs"]}
            return outputs["prediction_id"][0], answer.headers["x-serin-revision"]

    async def _call(self, channel: grpc.aio.Channel, row: list[float]) -> tuple[str, str]:
        """The same over gRPC."""
        request = v2.ModelInferRequest(model_name="iris")
        request.inputs.add(name="x", datatype="FP64", shape=[1, len(row)]).contents.fp64_contents.extend(row)
        running = channel.unary_unary(INFER)(request.SerializeToString(), timeout=20)
        answer = v2.ModelInferResponse.FromString(await running)
        outputs = {output.name: output.contents for output in answer.outputs}
        told = dict(await running.trailing_metadata())
        return outputs["prediction_id"].bytes_contents[0].decode(), told["x-serin-revision"]

    async def seen(self) -> Snapshot:
        arms = CANARY, STABLE
        seen = await look(self.session, None, ("team", "iris"), PODS, self.spec, arms, time.time(), shadow=True)
        assert seen.problem is None and not seen.unread
        return seen

    async def begun(self) -> str:
        return analysis.begin(self.spec, await self.seen(), CANARY, STABLE, time.time(), shadow=True)

    async def judged(self, state: str) -> Judgement:
        window = self.spec.label_window
        self.places = await carry(self.session, "iris", PODS, (CANARY, STABLE), window, self.places)
        seen = await self.seen()
        return analysis.judge(self.spec, state, seen, CANARY, STABLE, time.time(), weight=100, mirror=100)

    async def verdict(self, most: int) -> Judgement:
        """The first that is not to wait."""
        rng = np.random.default_rng(7)
        state = await self.begun()
        while self.asked < most:
            await self.some(200, rng)
            found = await self.judged(state)
            state = found.state
            if found.verdict.action is not Action.WAIT:
                return found
        raise AssertionError(f"no verdict after {self.asked} requests: {found.summary}")


@contextlib.asynccontextmanager
async def shadow(
    binary: Path, directory: Path, candidate: bytes, monkeypatch: pytest.MonkeyPatch, *, over_grpc: bool = False
) -> AsyncIterator[Shadow]:
    port, grpc_port, front, status, admin = (free_port() for _ in range(5))
    for module in (scrape, courier):
        monkeypatch.setattr(module, "_PORT", port)
        monkeypatch.setattr(module, "_TIMEOUT", aiohttp.ClientTimeout(total=20))
    ports = {
        ("0.0.0.0", 8080): front,
        ("0.0.0.0", listeners.STATUS_PORT): status,
        ("127.0.0.1", listeners.ADMIN_PORT): admin,
        (OWNER.server(STABLE), 8080): port,
        (OWNER.server(CANARY), 8080): port,
        (OWNER.server(STABLE), 8081): grpc_port,
        (OWNER.server(CANARY), 8081): grpc_port,
    }

    def placed(value: Any) -> Any:
        """Each revision's server at its own address."""
        text = json.dumps(on_loopback(value, ports, volume.path))
        return json.loads(text)

    volume = ConfigMapVolume(directory / "files")
    route = Route(STABLE, CANARY, mirror=100)
    clusters = config.clusters(OWNER, [STABLE, CANARY], {CANARY: STABLE}, "1", mirrored=CANARY)
    files = {"cds.json": placed(clusters), "rds.json": placed(config.routes(route, TRAFFIC, "1"))}
    for cluster in files["cds.json"]["resources"]:
        revision = CANARY if CANARY in cluster["name"] else STABLE
        for group in cluster["load_assignment"]["endpoints"]:
            for endpoint in group["lb_endpoints"]:
                endpoint["endpoint"]["address"]["socket_address"]["address"] = HOSTS[revision]
    volume.write({name: json.dumps(file) for name, file in files.items()})
    with (
        server(STABLE, models.better().data, port, grpc_port, directory),
        server(CANARY, candidate, port, grpc_port, directory),
    ):
        async with (
            envoy(binary, placed(listeners.bootstrap(TRAFFIC)), directory),
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(f"127.0.0.1:{front}", [("grpc.use_local_subchannel_pool", 1)]) as channel,
        ):
            yield Shadow(session, f"http://127.0.0.1:{front}/v2/models/iris", channel if over_grpc else None)


@pytest.mark.parametrize("over_grpc", [False, True], ids=["HTTP", "gRPC"])
async def test_a_candidate_that_is_as_good_is_promoted_on_few_labels(
    envoy_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_grpc: bool
) -> None:
    async with shadow(envoy_binary, tmp_path, models.equal().data, monkeypatch, over_grpc=over_grpc) as world:
        found = await world.verdict(most=6000)
    assert found.verdict.action is Action.PROMOTE, found.summary
    assert world.heard == {STABLE}
    report = next(report for report in found.reports if report.name == "accuracy")
    print(f"promoted after {world.asked} requests and {world.labelled} labels: {report.message}")
    assert world.labelled < 1000
    assert found.exposed == 0
    assert not found.share_mismatch


async def test_labels_count_by_pairs_also_at_the_age_of_a_label_window(
    envoy_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shadow(envoy_binary, tmp_path, models.harmful().data, monkeypatch) as world:
        world.spec = AGED
        found = await world.verdict(most=100_000)
    assert found.verdict.action is Action.ROLL_BACK, found.summary
    assert found.reason_for_rollback()[0] == "LessAccurate"
    (accuracy,) = (report for report in found.reports if report.name == "accuracy")
    (differ,) = (remark for remark in found.remarks if remark.reason == "AnswersDiffer")
    print(f"dropped after {world.asked} requests: {accuracy.message} {differ.message}")
    assert "requests that both answered" in accuracy.message
    assert "drawn by chance, with the labels that came within 10 s" in differ.message


async def test_a_worse_candidate_is_dropped_and_no_client_got_an_answer_of_it(
    envoy_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shadow(envoy_binary, tmp_path, models.harmful().data, monkeypatch) as world:
        found = await world.verdict(most=6000)
    assert found.verdict.action is Action.ROLL_BACK, found.summary
    assert found.reason_for_rollback()[0] == "LessAccurate"
    assert world.heard == {STABLE}
    report = next(report for report in found.reports if report.name == "accuracy")
    print(f"dropped after {world.asked} requests and {world.labelled} labels: {report.message}")
    assert "AnswersDiffer" in {remark.reason for remark in found.remarks}
