"""What the API server refuses, by a quota or a policy, keeps nothing else back."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from serin_operator.act.client import ApiError


class RefusedError(ApiError):
    """The first refusal in a pass that did all else.

    wait: seconds until the next look, at most. A canary is looked at as often as it was, whatever is refused.
    """

    def __init__(self, first: ApiError, wait: float) -> None:
        super().__init__(first.code, first.message)
        self.wait = wait


@contextmanager
def noted(refusals: list[ApiError], what: str) -> Iterator[None]:
    """Notes it instead of raising when this is refused, or whoever has to admit it does not answer."""
    try:
        yield
    except TimeoutError:
        refusals.append(ApiError(HTTPStatus.GATEWAY_TIMEOUT, f"{what}: no answer in time"))
    except ApiError as error:
        refusals.append(ApiError(error.code, f"{what}: {error.message}", raced=error.raced))
