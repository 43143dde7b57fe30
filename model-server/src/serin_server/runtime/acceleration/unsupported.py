"""Why an estimator is not converted."""


class UnsupportedError(Exception):
    """The estimator is of a kind, or has a setting, that is not converted; the text ends a sentence that says so."""
