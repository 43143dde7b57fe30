"""scikit-learn without what it imports only to see whether it is there."""

import sys


def import_scikit_learn() -> None:
    """Import it without pandas, which takes a quarter of the time and 30 MB; who needs pandas imports it later.

    `sklearn.utils.fixes` imports pandas if there is one, and makes nothing of it. It is imported here, once, while the
    import of pandas fails, as it does where pandas is not installed (None in sys.modules is Python's way to say that).
    """
    if "pandas" in sys.modules or "sklearn" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        import sklearn.utils.fixes  # noqa: F401
    finally:
        del sys.modules["pandas"]
