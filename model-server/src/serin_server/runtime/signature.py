"""Checks detached signatures in the format of OpenSSF Model Signing, against a digest that was taken in memory.

The library is imported only here, when there is a signature to check: it takes a quarter of a second and 50 MiB.
"""

import json
import tempfile
from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from serin_server.failures import FatalError, Reason
from serin_server.runtime.loading import summary

# A bundle with a chain of certificates has some kilobytes.
MOST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class SignatureCheck:
    """A signature file and who must have made it.

    Exactly one of the two is given: `public_key`, an ECDSA key, or `certificates`, which a chain from the signer's own
    certificate must lead to. Both are PEM texts, and come from the person who serves, never from the signature.
    """

    signature: Path
    public_key: str | None = None
    certificates: str | None = None

    def verify(self, sha256: str) -> datetime | None:
        """Return when the signature is for one file with this SHA-256 (lower-case hex). Raises FatalError.

        What is returned is the end of the signer's certificate, None for a key. A certificate that has ended vouches
        all the same, as the format has it: nothing tells when the signature was made, and a model that serves must not
        fail at its next start.

        The library would hash the model's path a second time, when something else may be there. It gets the digest of
        the bytes that are about to be loaded instead.
        """
        bundle = self._read()
        try:
            from model_signing import verifying
        except ImportError as error:
            raise FatalError(Reason.MISSING_MODULE, f"this image cannot check signatures: {summary(error)}") from error
        config = verifying.Config().set_hashing_config(_digest_in_memory(sha256))
        # The library reads all from paths: from a directory that nobody else can write.
        with tempfile.TemporaryDirectory(prefix="serin-signature-") as directory:
            signature, trusted = Path(directory, "signature"), Path(directory, "trusted.pem")
            signature.write_bytes(bundle)
            trusted.write_text(self.public_key or self.certificates or "")
            try:
                if self.public_key is not None:
                    config.use_elliptic_key_verifier(public_key=trusted)
                else:
                    config.use_certificate_verifier(certificate_chain=[trusted])
            except Exception as error:
                raise self._invalid(f"the trusted key or certificate cannot be used ({summary(error)})") from error
            try:
                config.verify(PurePosixPath("."), signature)
            except Exception as error:
                # Whatever a hostile file makes the library raise, it does not vouch for the model.
                raise self._invalid(_cause(error, sha256)) from error
        return None if self.certificates is None else _end_of_certificate(bundle)

    def _read(self) -> bytes:
        try:
            with self.signature.open("rb") as file:
                bundle = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise FatalError(
                Reason.SIGNATURE_MISSING, f"the signature {self.signature} cannot be read: {error.strerror}"
            ) from error
        if len(bundle) > MOST_BYTES:
            raise self._invalid(f"it has more than {MOST_BYTES} bytes")
        return bundle

    def _invalid(self, why: str) -> FatalError:
        return FatalError(
            Reason.SIGNATURE_INVALID, f"the signature {self.signature} does not vouch for the model: {why}"
        )


def _end_of_certificate(bundle: bytes) -> datetime:
    """When the first certificate of the signer's chain ends that does, of a signature that was verified."""
    from cryptography import x509

    chain = json.loads(bundle)["verificationMaterial"]["x509CertificateChain"]["certificates"]
    return min(x509.load_der_x509_certificate(b64decode(one["rawBytes"])).not_valid_after_utc for one in chain)


def _cause(error: Exception, sha256: str) -> str:
    from cryptography.exceptions import InvalidSignature
    from OpenSSL.crypto import X509StoreContextError

    if isinstance(error, InvalidSignature):
        return "another key made it, or it was changed"
    if isinstance(error, X509StoreContextError):
        return f"no trusted certificate stands behind its signer's ({error})"
    if str(error).startswith("Signature mismatch"):
        return f"it is for other bytes than those with SHA-256 {sha256}, or for more than one file"
    return f"model-signing refuses it ({summary(error).strip()})"


def _digest_in_memory(sha256: str) -> Any:
    """A hashing configuration whose model is one file with this SHA-256, as the library describes it."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    item = manifest.FileManifestItem(path=PurePosixPath("."), digest=Digest("sha256", bytes.fromhex(sha256)))
    serialization = manifest.SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    )

    class Known(hashing.Config):  # type: ignore[misc]
        def hash(self, _model_path: object, **_files: object) -> Any:
            return manifest.Manifest("model", [item], serialization)

    return Known()
