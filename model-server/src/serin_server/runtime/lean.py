"""scikit-learn without what it imports only to see whether it is there."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


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


class _Statistics(ModuleType):
    """Stands for `scipy.stats` until one of its functions is called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):  # what the import machinery asks modules for
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Any:
            import scipy

            if sys.modules.get("scipy.stats") is self:
                del sys.modules["scipy.stats"]
            import scipy.stats

            return getattr(scipy.stats, name)(*arguments, **named)

        return call


def import_scikit_learn_for_a_trial() -> None:
    """Import it without `scipy.stats` too, which takes a third of the time that is left.

    Only for a process that is thrown away and whose result is proven: who asks for more than a function's result of
    that package fails.
    """
    if "scipy.stats" not in sys.modules:
        import scipy

        sys.modules["scipy.stats"] = scipy.stats = _Statistics("scipy.stats")
    import_scikit_learn()
