"""Which revision a spec asks for: exact model bytes plus server configuration, named by their hash."""

import hashlib
import json
from typing import Any

from serin_operator.api.spec import Model, Spec
from serin_operator.api.status import Resolved, Revision
from serin_operator.decide.observed import Defaults

_NAME_LENGTH = 10


def pinned(model: Model, resolved: Resolved | None) -> str | None:
    """The SHA-256 of the model's bytes, from the spec or from an earlier resolution; None while it is unknown."""
    if model.sha256:
        return model.sha256
    if resolved and (resolved.uri, resolved.version) == (model.uri, model.version):
        return resolved.sha256
    return None


def revision_of(spec: Spec, sha256: str, defaults: Defaults) -> Revision:
    """The revision that the spec asks for when its model has these bytes.

    Where the bytes come from and the operator's default image are not part of the name: moving a model or
    upgrading Serin starts no rollout, and a revision keeps the image that it began with.
    """
    identity: dict[str, Any] = {
        "format": spec.model.format,
        "sha256": sha256,
        "version": spec.model.version,
        "server": spec.server.config,
    }
    if spec.model.trusted_types:  # only then, so that revisions from before the field keep their names
        identity["trustedTypes"] = sorted(spec.model.trusted_types)
    if spec.model.profile:  # the same
        identity["profile"] = spec.model.profile.sha256
    signature = spec.model.signature
    if signature:  # the same; who is trusted, as a new choice must be enforced, and not where the signature is
        identity["signature"] = [signature.public_key, signature.certificate_chain]
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return Revision(
        revision=hashlib.sha256(canonical.encode()).hexdigest()[:_NAME_LENGTH],
        version=spec.model.version or sha256[:12],
        uri=spec.model.uri,
        format=spec.model.format,
        sha256=sha256,
        image=spec.server.config.get("image") or defaults.server_image,
        secret=spec.model.secret,
        trusted_types=spec.model.trusted_types,
        profile=spec.model.profile,
        signature=signature,
        config=spec.server.config,
    )


def resolver_name(name: str, model: Model) -> str:
    """The name of the pod that reads a model's digest: another model, another pod."""
    key = json.dumps([model.uri, model.version, model.secret])
    return f"{name}-resolve-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
