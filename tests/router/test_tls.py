"""TLS to clients in the real Envoy: by a Secret's files, which may be missing, damaged, or replaced."""

import asyncio
import datetime
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.loopback import ConfigMapVolume
from tests.router.grpc_upstream import GrpcUpstream, call
from tests.router.harness import CANARY, OWNER, STABLE, Router, eventually, running

from serin_operator.build import listeners
from serin_operator.decide.observed import Route
from serin_operator.observe.routers import expiry

pytestmark = pytest.mark.process
NAME = "iris.example.com"


def secret(days: int = 30) -> tuple[dict[str, str], datetime.datetime]:
    """The files of a kubernetes.io/tls Secret with a self-signed certificate, and when it expires."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{days} days")])
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    until = now + datetime.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "tls.crt": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        "tls.key": private.decode(),
    }, until


def trusting(files: dict[str, str], *protocols: str) -> ssl.SSLContext:
    """A client that trusts this certificate and no other."""
    context = ssl.create_default_context(cadata=files["tls.crt"])
    context.set_alpn_protocols(list(protocols) or ["http/1.1"])
    return context


async def answered(router: Router, context: ssl.SSLContext) -> bool:
    """Whether a client that trusts this gets its answer over TLS."""
    port = router.ports["0.0.0.0", listeners.TLS_PORT]
    try:
        async with router.session.post(
            f"https://127.0.0.1:{port}/v2/models/digits/infer", data=b"{}", ssl=context, server_hostname=NAME
        ) as answer:
            return answer.status == 200
    except (ssl.SSLError, OSError):
        return False


async def expires(router: Router) -> float | None:
    return expiry(await router.status("/certs"))


@pytest.fixture
def volume(tmp_path: Path) -> ConfigMapVolume:
    """Where the Secret is mounted; an optional Secret that is missing leaves an empty directory."""
    return ConfigMapVolume(tmp_path / "files-tls")


@pytest.fixture
async def router(envoy_binary: Path, tmp_path: Path, volume: ConfigMapVolume) -> AsyncIterator[Router]:
    """A router that shall serve TLS and has no Secret yet."""
    async with running(envoy_binary, tmp_path, Route(STABLE), tls_secret="iris-tls") as found:
        yield found


async def test_without_a_secret_plain_clients_are_served_and_the_router_says_so(router: Router) -> None:
    assert await router.one() == (200, "stable")
    assert not await answered(router, trusting(secret()[0]))
    assert await expires(router) is None


async def test_a_secret_that_comes_later_is_served(router: Router, volume: ConfigMapVolume) -> None:
    files, until = secret()
    volume.write(files)
    await eventually(lambda: answered(router, trusting(files)))
    assert await expires(router) == until.timestamp()


@pytest.mark.parametrize("damage", ["no PEM", "another key", "no key"])
async def test_a_damaged_secret_is_none_and_one_that_is_mended_is_served(
    router: Router, volume: ConfigMapVolume, damage: str
) -> None:
    files, until = secret()
    broken = {
        "no PEM": {**files, "tls.crt": "?"},
        "another key": {**files, "tls.key": secret()[0]["tls.key"]},
        "no key": {"tls.crt": files["tls.crt"]},
    }[damage]
    volume.write(broken)
    assert await router.one() == (200, "stable")
    assert await expires(router) is None
    volume.write(files)
    await eventually(lambda: answered(router, trusting(files)))
    assert await expires(router) == until.timestamp()


async def test_a_new_certificate_is_served_without_a_restart_and_loses_no_request(
    router: Router, volume: ConfigMapVolume
) -> None:
    old, new = secret(10)[0], secret(90)[0]
    volume.write(old)
    await eventually(lambda: answered(router, trusting(old)))
    both = ssl.create_default_context(cadata=old["tls.crt"] + new["tls.crt"])
    over = asyncio.Event()

    async def ask() -> set[bool]:
        found = set()
        while not over.is_set():
            found.add(await answered(router, both))
        return found

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    volume.write(new)
    await eventually(lambda: answered(router, trusting(new)))
    over.set()
    assert set().union(*await asyncio.gather(*asking)) == {True}


async def test_a_damaged_renewal_leaves_the_old_certificate(router: Router, volume: ConfigMapVolume) -> None:
    files, until = secret()
    volume.write(files)
    await eventually(lambda: answered(router, trusting(files)))
    volume.write({**files, "tls.crt": "?"})

    async def seen() -> bool:
        url = f"http://127.0.0.1:{router.ports['0.0.0.0', listeners.STATUS_PORT]}/stats/prometheus"
        async with router.session.get(url) as answer:
            text = await answer.text()
        return any("key_rotation_failed" in line and not line.endswith(" 0") for line in text.splitlines())

    await eventually(seen)
    assert await answered(router, trusting(files))
    assert await expires(router) == until.timestamp()


async def test_clients_choose_http_2_and_grpc_by_alpn(router: Router, volume: ConfigMapVolume) -> None:
    files, _ = secret()
    volume.write(files)
    await eventually(lambda: answered(router, trusting(files)))
    port = router.ports["0.0.0.0", listeners.TLS_PORT]
    for offered, chosen in (("h2", "h2"), ("http/1.1", "http/1.1")):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(files, offered), server_hostname=NAME)
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        assert found.selected_alpn_protocol() == chosen
        writer.close()
    credentials = grpc.ssl_channel_credentials(files["tls.crt"].encode())
    options: list[tuple[str, Any]] = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
    upstream = GrpcUpstream("stable", router.ports[OWNER.server(STABLE), 8081])
    async with (
        upstream.running(),
        grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel,
    ):
        assert await call(channel) == (grpc.StatusCode.OK, "stable")


async def test_envoy_has_no_complaint_about_the_configuration(
    router: Router, volume: ConfigMapVolume, tmp_path: Path
) -> None:
    volume.write(secret()[0])
    await router.set_route(Route(STABLE, CANARY, 25))
    assert "eprecated" not in (tmp_path / "envoy.log").read_text()
    assert json.dumps(listeners.certificate())
