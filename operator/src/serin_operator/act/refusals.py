"""What the API server refuses, by a quota or a policy, keeps nothing else back."""

from collections.abc import Iterator
from contextlib import contextmanager

from serin_operator.act.client import ApiError


class RefusedError(ApiError):
    """The first refusal in a pass that did all else.

    wait: seconds until the next look, at most. A canary is looked at as often as it was, whatever is refused.
    """

    def __init__(self, first: ApiError, wait: float) -> None:
        super().__init__(first.code, first.message)
        self.wait = wait


@contextmanager
def noted(refusals: list[ApiError]) -> Iterator[None]:
    """Notes a refusal instead of raising it."""
    try:
        yield
    except ApiError as error:
        refusals.append(error)
