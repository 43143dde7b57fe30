"""The condition on TLS, and when the routers are asked again."""

from dataclasses import replace

import pytest
from tests.operator.decide.world import serving

from serin_operator.api.status import Condition
from serin_operator.decide.certificate import POLL_SECONDS, check_at, told
from serin_operator.decide.drift_watch import Told
from serin_operator.decide.observed import Observed, Router
from serin_operator.decide.roles import route_of
from serin_operator.decide.rollout import decide, wants

NOW = 1_750_000_000.0


def observed(*certificates: float | None, tls: bool = True) -> Observed:
    world = serving()
    seen = replace(world.passes[-1].observed, status=world.status, served=route_of(world.status))
    spec = replace(seen.spec, traffic=replace(seen.spec.traffic, tls_secret="iris-tls" if tls else None))
    router = Router(len(certificates), certificates=certificates) if certificates else None
    return replace(seen, spec=spec, router=router)


@pytest.mark.parametrize(
    ("certificates", "status", "reason", "words"),
    [
        ((NOW + 86400, NOW + 90000), "True", "Served", "Secret iris-tls is valid until 2025-06-16T15:06:40Z"),
        ((None, None), "False", "CertificateMissing", "2 of 2 routers have no certificate"),
        ((NOW + 60, None), "False", "CertificateMissing", "1 of 2 routers have no certificate"),
        ((NOW, NOW + 60), "False", "CertificateExpired", "expired at 2025-06-15T15:06:40Z"),
        ((), "Unknown", "NotRead", "not asked"),
    ],
)
def test_the_condition_says_what_clients_get(
    certificates: tuple[float | None, ...], status: str, reason: str, words: str
) -> None:
    seen = observed(*certificates)
    found = told(seen, seen.status, NOW)
    assert found is not None
    assert (found.status, found.reason) == (status, reason)
    assert words in found.message


def test_what_was_not_asked_is_as_it_was() -> None:
    seen = observed()
    before = Condition("CertificateServed", "False", "CertificateMissing", "None.", NOW, 1)
    status = replace(seen.status, conditions=(before,))
    assert told(seen, status, NOW) == Told("False", "CertificateMissing", "None.")


def test_without_tls_there_is_no_condition_and_no_question() -> None:
    seen = observed(tls=False)
    assert told(seen, seen.status, NOW) is None
    assert check_at(seen, seen.status, NOW) is None
    assert not wants(seen.status, seen.spec, seen.served, NOW).router


def test_a_missing_certificate_is_looked_for_and_moves_nothing() -> None:
    seen = observed(None)
    assert wants(seen.status, seen.spec, seen.served, NOW).router
    decision = decide(seen, NOW)
    assert decision.status.conditions[0].reason == "CertificateMissing"
    assert decision.status.phase is seen.status.phase
    assert decision.check_at is not None and decision.check_at <= NOW + POLL_SECONDS
    served = decide(replace(observed(NOW + 86400), status=decision.status), NOW).status
    assert served.conditions[0].reason == "Serving"
