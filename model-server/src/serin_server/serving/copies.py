"""By what two revisions' servers know that they answer copies of the same request."""

import hashlib

MARK_HEADER = "x-serin-shadow"  # set by a router that sends copies of the request to another revision


def shared_by_http(request_id: str | None, body: bytes) -> str | None:
    """What is the same in both copies of a marked request, and in no other; None for one without an id.

    The body is part of it: some routers take the id from clients, and one id for requests of several kinds would pair
    answers to different questions.
    """
    return _shared(request_id, body, b"")


def shared_by_grpc(request_id: str | None, message: bytes) -> str | None:
    """The same for a call with this message, and never equal to a request's over HTTP."""
    return _shared(request_id, message, b"grpc")


def _shared(request_id: str | None, content: bytes, protocol: bytes) -> str | None:
    if request_id is None:
        return None
    return f"{request_id} {hashlib.blake2b(content, digest_size=16, person=protocol).hexdigest()}"
