"""A detached signature vouches for the very bytes that are loaded, or nothing of them is."""

import base64
import datetime
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from model_signing import signing
from sklearn.linear_model import LogisticRegression
from tests.model_server import estimators
from tests.model_server.serving import environment, run, save

from serin_server.check.command import check as check_file
from serin_server.failures import FatalError, Reason
from serin_server.runtime.acceleration import Accelerate
from serin_server.runtime.formats import Format
from serin_server.runtime.opening import open_model
from serin_server.runtime.signature import MOST_BYTES, SignatureCheck

NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Signer:
    """A key with its certificate, in files of one directory."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    directory: Path

    @property
    def key_path(self) -> Path:
        return self.directory / "key.pem"

    @property
    def certificate_path(self) -> Path:
        return self.directory / "certificate.pem"

    @property
    def chain_path(self) -> Path:
        return self.directory / "chain.pem"

    @property
    def public_key(self) -> str:
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, model: Path, *, with_certificate: bool = False) -> Path:
        """Write and return `MODEL.sig`, as the library makes it."""
        signature = model.with_name(model.name + ".sig")
        config = signing.Config()
        if with_certificate:
            config.use_certificate_signer(
                private_key=self.key_path,
                signing_certificate=self.certificate_path,
                certificate_chain=[self.chain_path],
            )
        else:
            config.use_elliptic_key_signer(private_key=self.key_path)
        config.sign(model, signature)
        return signature


def signer(
    directory: Path, issuer: Signer | None = None, *, signs: bool = True, days: tuple[int, int] = (-1, 1)
) -> Signer:
    """A new key; its certificate is its own root without an issuer, and valid between these days from now."""
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, directory.name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=days[0]))
        .not_valid_after(NOW + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(signs, False, not signs, False, False, issuer is None, False, False, False), True)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    made = Signer(key, certificate, directory)
    made.key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.certificate_path.write_text(made.pem)
    made.chain_path.write_text((issuer or made).pem)
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return signer(tmp_path_factory.mktemp("signers") / "root")


@pytest.fixture(scope="module")
def alice(root: Signer) -> Signer:
    """The root vouches for her."""
    return signer(root.directory.parent / "alice", root)


@pytest.fixture(scope="module")
def mallory(root: Signer) -> Signer:
    """A stranger with a certificate of his own making."""
    return signer(root.directory.parent / "mallory")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "model.joblib")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(check: SignatureCheck, digest: str) -> FatalError:
    with pytest.raises(FatalError) as failure:
        check.verify(digest)
    return failure.value


def test_a_key_or_a_chain_to_a_trusted_certificate_vouches(model: Path, alice: Signer, root: Signer) -> None:
    SignatureCheck(alice.sign(model), public_key=alice.public_key).verify(sha256(model))
    SignatureCheck(alice.sign(model, with_certificate=True), certificates=root.pem).verify(sha256(model))


@pytest.mark.parametrize("with_certificate", [False, True])
def test_a_stranger_does_not_vouch(
    model: Path, alice: Signer, root: Signer, mallory: Signer, with_certificate: bool
) -> None:
    trusted = {"certificates": root.pem} if with_certificate else {"public_key": alice.public_key}
    signature = mallory.sign(model, with_certificate=with_certificate)
    assert refused(SignatureCheck(signature, **trusted), sha256(model)).reason is Reason.SIGNATURE_INVALID
    # A certificate that the signature brings along is not trusted for that.
    chain = json.loads(signature.read_text())
    chain["verificationMaterial"] = json.loads(alice.sign(model, with_certificate=True).read_text())[
        "verificationMaterial"
    ]
    signature.write_text(json.dumps(chain))
    assert refused(SignatureCheck(signature, **trusted), sha256(model)).reason is Reason.SIGNATURE_INVALID


def test_a_certificate_that_is_not_for_signing_does_not_vouch(model: Path, root: Signer) -> None:
    reader = signer(model.parent / "reader", root, signs=False)
    failure = refused(SignatureCheck(reader.sign(model, with_certificate=True), certificates=root.pem), sha256(model))
    assert "cannot be used for signing" in failure.message


def test_a_certificate_that_has_ended_vouches_and_that_is_told(
    model: Path, root: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    """A pod that starts again must not fail for it, and nothing says that the signature was not made in time."""
    issuer = signer(model.parent / "issuer", days=(-30, 30))
    past = signer(model.parent / "past", issuer, days=(-20, -10))
    check = SignatureCheck(past.sign(model, with_certificate=True), certificates=issuer.pem)
    assert check.verify(sha256(model)) == past.certificate.not_valid_after_utc
    opened, _ = open_model(model, sha256(model), Format.JOBLIB, (), Accelerate.NEVER, check)
    assert opened.description == "LogisticRegression"
    assert [record.message for record in caplog.records] == ["the signer's certificate has ended"]
    certificate = check_file(model, Format.JOBLIB, (), check)["certificate"]
    assert certificate == {"ends": past.certificate.not_valid_after_utc.isoformat(), "ended": True}


def test_the_end_that_is_told_is_the_first_in_the_chain(
    model: Path, alice: Signer, root: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    check = SignatureCheck(alice.sign(model, with_certificate=True), certificates=root.pem)
    assert check.verify(sha256(model)) == alice.certificate.not_valid_after_utc
    assert check_file(model, Format.JOBLIB, (), check)["certificate"]["ended"] is False
    open_model(model, sha256(model), Format.JOBLIB, (), Accelerate.NEVER, check)
    assert caplog.records == []
    assert SignatureCheck(alice.sign(model), public_key=alice.public_key).verify(sha256(model)) is None


def test_a_certificate_from_outside_its_issuers_time_does_not_vouch(model: Path) -> None:
    """Its chain is looked at as of the day on which it begins."""
    issuer = signer(model.parent / "issuer", days=(-30, -20))
    late = signer(model.parent / "late", issuer, days=(-10, 10))
    check = SignatureCheck(late.sign(model, with_certificate=True), certificates=issuer.pem)
    assert "has expired" in refused(check, sha256(model)).message


def test_other_bytes_and_other_files_are_not_vouched_for(model: Path, alice: Signer, tmp_path: Path) -> None:
    check = SignatureCheck(alice.sign(model), public_key=alice.public_key)
    assert "other bytes" in refused(check, "0" * 64).message
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "model.joblib").write_bytes(model.read_bytes())
    check = SignatureCheck(alice.sign(directory), public_key=alice.public_key)
    assert "more than one file" in refused(check, sha256(model)).message


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff\xfe", b"null", b'{"verificationMaterial": {}}', b"[" * 100_000]
)
def test_foreign_bytes_do_not_vouch(tmp_path: Path, alice: Signer, data: bytes) -> None:
    signature = tmp_path / "signature"
    signature.write_bytes(data)
    for trusted in ({"public_key": alice.public_key}, {"certificates": alice.pem}):
        assert refused(SignatureCheck(signature, **trusted), "0" * 64).reason is Reason.SIGNATURE_INVALID


def test_a_signature_has_a_size_and_must_be_there(tmp_path: Path, alice: Signer) -> None:
    check = SignatureCheck(tmp_path / "signature", public_key=alice.public_key)
    assert refused(check, "0" * 64).reason is Reason.SIGNATURE_MISSING
    check.signature.write_bytes(b" " * (MOST_BYTES + 1))
    assert "more than" in refused(check, "0" * 64).message


@pytest.mark.parametrize(
    "pem", ["", "-----BEGIN PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"]
)
def test_a_key_that_is_none_is_told(model: Path, alice: Signer, pem: str) -> None:
    signature = alice.sign(model)
    for check in (SignatureCheck(signature, public_key=pem), SignatureCheck(signature, certificates=pem)):
        assert "the trusted key or certificate cannot be used" in refused(check, sha256(model)).message


@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_no_change_of_what_was_signed_goes_through(
    tmp_path_factory: pytest.TempPathFactory, alice: Signer, data: st.DataObject
) -> None:
    """A changed file is refused, unless the change means nothing: what was signed, and by whom, is still the same."""
    directory = tmp_path_factory.mktemp("changed", numbered=True)
    model = directory / "model"
    model.write_bytes(b"the model")
    signature = alice.sign(model)
    text = bytearray(signature.read_bytes())
    signed = base64.b64decode(json.loads(text)["dsseEnvelope"]["payload"])
    position = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(text))  # signatures vary in length
    text[position] = data.draw(st.integers(0, 255))
    signature.write_bytes(text)
    try:
        SignatureCheck(signature, public_key=alice.public_key).verify(sha256(model))
    except FatalError:
        pass
    else:
        assert base64.b64decode(json.loads(text)["dsseEnvelope"]["payload"]) == signed


@pytest.mark.process
def test_nothing_is_unpickled_before_the_signature_is_checked(tmp_path: Path, alice: Signer, mallory: Signer) -> None:
    proof = tmp_path / "ran"
    model = save(estimators.OnLoad(Path.touch, proof), tmp_path / "model")
    done = run("serve", model, "--signature", mallory.sign(model), "--public-key", alice.public_key)
    assert (done.code, done.termination and done.termination["reason"]) == (26, "SignatureInvalid")
    assert not proof.exists()


def test_a_file_that_is_swapped_after_its_check_is_not_loaded(tmp_path: Path, model: Path, alice: Signer) -> None:
    """The bytes that were checked are in memory: what lies at the path afterwards does not matter."""
    proof = tmp_path / "ran"
    hostile = save(estimators.OnLoad(Path.touch, proof), tmp_path / "hostile").read_bytes()

    class Swapping(SignatureCheck):
        def verify(self, sha256: str) -> datetime.datetime | None:
            ends = super().verify(sha256)
            model.write_bytes(hostile)
            return ends

    check = Swapping(alice.sign(model), public_key=alice.public_key)
    opened, digest = open_model(model, sha256(model), Format.JOBLIB, (), Accelerate.NEVER, check)
    assert opened.description == "LogisticRegression"
    assert digest != sha256(model)
    assert not proof.exists()


@pytest.mark.process
def test_the_command_says_that_a_signature_is_valid(model: Path, alice: Signer, tmp_path: Path) -> None:
    """With a signature by the library's own command line, as the documentation shows it."""
    signature, public = tmp_path / "model.joblib.sig", tmp_path / "key.pub"
    public.write_text(alice.public_key)
    signed = ["-m", "model_signing", "sign", "key", str(model)]
    subprocess.run(
        [sys.executable, *signed, "--private_key", str(alice.key_path), "--signature", str(signature)],
        check=True,
        capture_output=True,
    )
    done = run("check", model, "--signature", signature, "--public-key", public)
    assert (done.code, json.loads(done.stdout)["signature"]) == (0, "valid")


@pytest.mark.process
def test_a_key_without_a_signature_is_refused(model: Path, alice: Signer) -> None:
    """It would check nothing."""
    done = run("serve", model, "--public-key", alice.public_key)
    assert (done.code, done.termination and done.termination["reason"]) == (2, "InvalidConfiguration")


@pytest.mark.process
def test_a_server_without_a_signature_does_not_import_the_library(tmp_path: Path) -> None:
    code = (
        "import sys, serin_server.serve; sys.exit(bool({'model_signing', 'sigstore', 'OpenSSL'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(tmp_path / "log"), check=True, timeout=60)
