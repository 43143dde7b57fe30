"""The condition on TLS: whether every router has a certificate to show to clients, and until when it is valid."""

from datetime import UTC, datetime

from serin_operator.api.status import Status
from serin_operator.decide.drift_watch import Told
from serin_operator.decide.observed import Observed
from serin_operator.decide.roles import router_of, spec_of

CONDITION = "CertificateServed"
POLL_SECONDS = 10.0  # while a certificate is missing; no watch tells of a Secret


def told(observed: Observed, status: Status, now: float) -> Told | None:
    """What the condition says; None where no TLS is asked for."""
    secret, router = _secret(observed, status), observed.router
    if secret is None:
        return None
    if router is None or not router.certificates:
        before = status.condition(CONDITION)
        if before:
            return Told(before.status, before.reason, before.message)
        return Told("Unknown", "NotRead", "The routers were not asked for their certificate yet.")
    without = sum(expires is None for expires in router.certificates)
    if without:
        text = (
            f"{without} of {len(router.certificates)} routers have no certificate, so port 443 answers nothing; port "
            f"80 goes on. Secret {secret} must have tls.crt and tls.key, in PEM, that belong together."
        )
        return Told("False", "CertificateMissing", text)
    expires = min(expires for expires in router.certificates if expires is not None)
    until = datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z")
    if expires <= now:
        text = f"The certificate of Secret {secret} that the routers have expired at {until}: renew it."
        return Told("False", "CertificateExpired", text)
    return Told("True", "Served", f"The certificate of Secret {secret} is valid until {until}.")


def check_at(observed: Observed, status: Status, now: float) -> float | None:
    """When to ask again while a certificate is missing."""
    condition = status.condition(CONDITION)
    missing = _secret(observed, status) is not None and (condition is None or condition.status != "True")
    return now + POLL_SECONDS if missing else None


def _secret(observed: Observed, status: Status) -> str | None:
    """The one that the router which clients reach is asked for."""
    return spec_of(router_of(status), observed.spec, status).traffic.tls_secret
