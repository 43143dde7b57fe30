"""What an API server makes of a JSON patch, as far as Serin sends them."""

from copy import deepcopy
from typing import Any


def patched(raw: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """What an API server makes of it. Raises AssertionError where a test in it fails."""
    after = deepcopy(raw)
    for operation in patch:
        *path, last = operation["path"].strip("/").split("/")
        place: Any = after
        for key in path:
            place = place[int(key) if isinstance(place, list) else key]
        if operation["op"] == "test":
            assert place[int(last) if isinstance(place, list) else last] == operation["value"]
        elif operation["op"] == "remove":
            del place[last]
        else:
            place[last] = operation["value"]
    return after
