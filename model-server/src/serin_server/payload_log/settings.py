"""What is logged of a prediction: how many, and which of its features."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serin_server.failures import FatalError, Reason
from serin_server.protocol.requests import Signature


@dataclass(frozen=True)
class PayloadLogSettings:
    """`sample` is a share of predictions, above 0. At most one of `include` and `exclude` is given.

    `include` are the only features that are kept, an empty one keeps none; `exclude` are those that are not. A feature
    has its name, that of its tensor in a model that takes several, or else its position, from "0" on.
    """

    directory: Path
    sample: float = 1.0
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    max_bytes: int = 1024 * 1024 * 1024


def check_features(settings: PayloadLogSettings, signature: Signature) -> None:
    """Raises FatalError when a feature that is named does not exist: a misspelt one would be logged."""
    named = signature.names
    if named is None and signature.by_name and signature.inputs is not None:
        named = tuple(tensor.name for tensor in signature.inputs)
    known = named
    if known is None and signature.features is not None:
        known = tuple(map(str, range(signature.features)))
    for name in (*(settings.include or ()), *(settings.exclude or ())):
        if not name.isdecimal() if known is None else name not in known:
            has = "its features have no names: use positions, from 0 on"
            if named is not None:
                has = f"it has {', '.join(named[:20])}{' and more' if len(named) > 20 else ''}"
            raise FatalError(
                Reason.INVALID_CONFIGURATION,
                f"the payload log names the feature {name!r}, which the model lacks; {has}",
            )


def kept(settings: PayloadLogSettings, names: Sequence[str]) -> list[int]:
    """The positions of the features that are logged."""
    if settings.include is not None:
        return [position for position, name in enumerate(names) if name in settings.include]
    return [position for position, name in enumerate(names) if name not in (settings.exclude or ())]


def in_sample(prediction_id: str, share: float) -> bool:
    """Whether this prediction is logged: every server says the same, and of any two shares the larger has both."""
    return zlib.crc32(prediction_id.encode()) < share * 2**32
