"""A model file whose signer and whose training data are known, made by the commands that the documentation shows."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from demo.models import Digits

NAME = "vouched"
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Vouched:
    """`files` for the store, by name; the signer's public key, and another's, in PEM."""

    files: dict[str, bytes]
    public_key: str
    other_key: str

    @property
    def profile_sha256(self) -> str:
        return hashlib.sha256(self.files[f"{NAME}.joblib.profile.json"]).hexdigest()


def vouch(model: bytes, training: Digits, directory: Path) -> Vouched:
    """Sign a model with a new key, and profile the data that it was trained with."""
    signer, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    key, rows, file = directory / "signer.pem", directory / "rows.npy", directory / f"{NAME}.joblib"
    key.write_bytes(signer.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    np.save(rows, training.rows)
    file.write_bytes(model)
    signature = file.with_name(f"{file.name}.sig")
    _run("model_signing", "sign", "key", file, "--private_key", key, "--signature", signature)
    _run("serin_server", "profile", rows, "--model", file)
    return Vouched(
        {path.name: path.read_bytes() for path in directory.glob(f"{file.name}*")}, _public(signer), _public(other)
    )


def _run(module: str, *words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, words)], check=True, capture_output=True)


def _public(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(_PEM, _SPKI).decode()
