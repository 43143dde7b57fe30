"""How a request is refused."""


class ClientGoneError(Exception):
    """The client closed the connection before its answer."""


class RequestError(Exception):
    """A request that is answered with a status and {"error": message}."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def invalid(message: str) -> RequestError:
    """The client's mistake: 400."""
    return RequestError(400, message)
