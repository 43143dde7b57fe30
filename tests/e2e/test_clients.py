"""Clients of the router on the cluster: testers before the first step, TLS, two routers, and how fast a route moves."""

import base64
import datetime
import statistics
import time
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.e2e.calls import ask, counted
from tests.e2e.deployments import condition, epoch, eventually

FLIPS = 50
FLIP_SECONDS = 2.5  # more than the worst that is allowed, so that one that is slower shows
TESTERS = {"header": {"name": "x-tester", "value": "yes"}}


def certificate(name: str) -> dict[str, str]:
    """The data of a kubernetes.io/tls Secret for a Service of this name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"tls.crt": made.public_bytes(serialization.Encoding.PEM).decode(), "tls.key": private.decode()}


def test_testers_meet_the_candidate_at_weight_0_and_are_no_evidence(serving: Callable[..., Any]) -> None:
    with serving("tested", 20) as (mdep, traffic):
        mdep.spec["traffic"] |= {"testers": TESTERS}
        mdep.spec["rollout"] |= {"paused": True}
        generation = mdep.serve("better")
        waiting = mdep.wait(
            "the candidate is ready", lambda s: s.get("canary", {}).get("readyReplicas", 0) > 0, 60, generation
        )
        stable, canary = waiting["stable"]["revision"], waiting["canary"]["revision"]
        eventually(lambda: ask(mdep, traffic, 1, x_tester="yes") == {canary: 1})
        assert mdep.status["weight"] == 0
        assert ask(mdep, traffic, 20, x_tester="yes") == {canary: 20}
        assert ask(mdep, traffic, 20) == {stable: 20}
        assert counted(mdep, canary, "tester") >= 21
        assert counted(mdep, canary, "first") == 0
        mdep.apply(rollout={"paused": False})
        mdep.wait_decision("Promoted")


def test_a_certificate_that_is_missing_harms_nobody_and_is_served_when_it_comes(serving: Callable[..., Any]) -> None:
    with serving("ciphered", 20) as (mdep, traffic):
        routers = {"replicas": 2}
        generation = mdep.apply(traffic={"tls": {"secretName": "ciphered-tls"}, "router": routers})

        def says(reason: str) -> Callable[[dict[str, Any]], bool]:
            return lambda status: condition(status, "CertificateServed").get("reason") == reason

        status = mdep.wait("it misses the certificate", says("CertificateMissing"), 60, generation)
        assert ask(mdep, traffic) == {status["stable"]["revision"]: 10}
        data = certificate(mdep.name)
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
        name = {"name": "ciphered-tls", "namespace": mdep.namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": name, "data": encoded}
        mdep.cluster.apply([secret])
        mdep.wait("it has the certificate", says("Served"), 150)
        assert ask(mdep, traffic, trusted=data["tls.crt"]) == {status["stable"]["revision"]: 10}
        [budget] = mdep.owned("poddisruptionbudgets")
        assert budget["status"]["expectedPods"] == 2
        mdep.apply(traffic={"router": {"replicas": 1}})
        deadline = time.monotonic() + 30
        while mdep.owned("poddisruptionbudgets"):
            assert time.monotonic() < deadline, mdep.account()
            time.sleep(0.5)


def test_from_the_decision_to_the_last_request_it_takes_a_second(serving: Callable[..., Any]) -> None:
    """Back and forth between two warm revisions: back by a change of the spec, forth by a promotion by hand."""
    with serving("flipped", 100) as (mdep, traffic):
        mdep.serve("better")
        mdep.wait_decision("Promoted")
        silences = []
        for number in range(FLIPS):
            model, decision = (("first", "Reverted"), ("better", "Promoted"))[number % 2]
            generation = mdep.serve(model)
            if decision == "Promoted":
                mdep.wait("it has begun", lambda status: "rollout" in status, 30, generation)
                mdep.mark("promote", f"full-{number}")
            record = mdep.wait_decision(decision, 30)
            time.sleep(max(0.0, epoch(record["time"]) + FLIP_SECONDS - time.time()))
            left = traffic.stats()["by_revision"][record["fromRevision"]]
            silences.append(float(left["last_sent"]) / 1000 - epoch(record["time"]))
        median, worst = statistics.median(silences), max(silences)
        print(f"from a decision to the last request of {FLIPS}: median {median:.2f} s, worst {worst:.2f} s")
        assert median <= 1.0, silences
        assert worst <= 2.0, silences
