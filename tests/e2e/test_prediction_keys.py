"""A key of prediction ids is changed in its Secret, as the documentation says, while two pods serve."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator

import pytest
from demo import models
from demo.environment import Cluster
from tests.e2e.calls import label, predict
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import ModelDeployment

from serin_server.monitor.keys import SETTLE_SECONDS, Keyring
from serin_server.monitor.tokens import Refusal, TokenRefusedError, Tokens

ROW = models.split()[1].rows[0].tolist()
# Until the new key signs: the pods have it sooner, which is what the test looks at.
AHEAD_SECONDS = 45


@pytest.fixture
def keyed(new_model_deployment: NewModelDeployment) -> Iterator[ModelDeployment]:
    mdep = new_model_deployment("keyed")
    mdep.spec["server"] = {"replicas": 2}
    try:
        mdep.wait_serving(mdep.serve("first"))
        yield mdep
    finally:
        mdep.delete(wait=False)


def test_a_new_key_takes_over_and_no_label_is_refused_until_the_old_one_is_removed(
    cluster: Cluster, keyed: ModelDeployment
) -> None:
    pods = sorted(keyed.server_pods(keyed.status["stable"]["revision"]))
    assert len(pods) == 2
    [secret] = keyed.owned("secrets")
    name = secret["metadata"]["name"]
    old, new = base64.b64decode(secret["data"]["key"]), secrets.token_bytes(32)
    is_old, is_new = signed_with(old, keyed), signed_with(new, keyed)
    early = [predict(keyed, [ROW], pod)["prediction_id"][0] for pod in pods]
    assert all(map(is_old, early))

    made = int(time.time()) - SETTLE_SECONDS + AHEAD_SECONDS
    patch(cluster, keyed, name, {f"key-{made}": base64.b64encode(new).decode()})
    bring_to_pods(cluster, keyed, pods)
    seen: dict[str, list[str]] = {"old": [], "new": []}
    deadline = time.monotonic() + AHEAD_SECONDS + 60
    while len(seen["new"]) < 6:
        assert time.monotonic() < deadline, f"the new key does not sign after {AHEAD_SECONDS} s and a minute"
        for pod, other in (pods, pods[::-1]):
            [made_now] = predict(keyed, [ROW], pod)["prediction_id"]
            seen["new" if is_new(made_now) else "old"].append(made_now)
            assert is_new(made_now) or is_old(made_now)
            # The pod beside it takes the id at once, whichever key has signed it.
            assert label(keyed, {made_now: 0}, other) == {"accepted": 1, "duplicates": 0, "refused": []}
        time.sleep(1)
    assert seen["old"], "the new key signed before every pod could know it"
    assert made + SETTLE_SECONDS <= time.time()
    # Labels for what was predicted before the change still count.
    assert label(keyed, {early[0]: 0}, pods[1]) == {"accepted": 1, "duplicates": 0, "refused": []}

    patch(cluster, keyed, name, {"key": None})
    bring_to_pods(cluster, keyed, pods)
    for pod in pods:
        wait_forged(keyed, early[1], pod)
    [late] = predict(keyed, [ROW], pods[0])["prediction_id"]
    assert is_new(late)
    assert label(keyed, {late: 0}, pods[1])["accepted"] == 1


def signed_with(key: bytes, mdep: ModelDeployment) -> Callable[[str], bool]:
    """Whether this key has signed an id."""
    tokens = Tokens(Keyring.of(key), mdep.name, mdep.status["stable"]["revision"])

    def signed(prediction_id: str) -> bool:
        try:
            tokens.read(prediction_id)
        except TokenRefusedError:
            return False
        return True

    return signed


def patch(cluster: Cluster, mdep: ModelDeployment, secret: str, data: dict[str, str | None]) -> None:
    """What the documentation's commands do."""
    change = json.dumps({"data": data})
    cluster.kubectl("patch", "secret", secret, "-n", mdep.namespace, "--type=merge", "-p", change)


def bring_to_pods(cluster: Cluster, mdep: ModelDeployment, pods: list[str]) -> None:
    """Let the kubelet look at the pods' volumes now: unasked it takes a minute or two, and the test would too."""
    for pod in pods:
        cluster.kubectl("annotate", "pod", pod, "-n", mdep.namespace, f"test/looked={time.time_ns()}", "--overwrite")


def wait_forged(mdep: ModelDeployment, prediction_id: str, pod: str) -> None:
    """Until a pod refuses labels for an id because nobody that it knows has signed it."""
    deadline = time.monotonic() + 150
    while [one["reason"] for one in label(mdep, {prediction_id: 0}, pod)["refused"]] != [Refusal.FORGED.text]:
        assert time.monotonic() < deadline, f"{pod} still takes an id of a key that was removed"
        time.sleep(1)
