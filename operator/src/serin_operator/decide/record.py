"""What an arm's record still allows its rate to be, after it has stopped getting traffic."""

import math

_PRIOR = 0.5  # Jeffreys' Beta(1/2, 1/2)
_HALVINGS = 50


def upper_limit(failures: int, trials: int, *, log_odds: float, phi: float = 1.0) -> float:
    """The highest rate against which a record of so many failures has less than `log_odds`; 1 without trials.

    The odds are those of the mixture over all rates, by Jeffreys' prior, against the rate: an e-process, so if the rate
    is constant, it is ever below the limit of any moment with probability at least 1 - exp(-log_odds), however the
    moment is chosen (method of mixtures; Robbins 1970). phi: overdispersion, which log odds are divided by.
    """
    if failures == trials:
        return 1.0
    successes = trials - failures
    mixture = _log_beta(failures + _PRIOR, successes + _PRIOR) - _log_beta(_PRIOR, _PRIOR)
    low, high = failures / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        likelihood = (failures * math.log(middle) if failures else 0.0) + successes * math.log1p(-middle)
        low, high = (middle, high) if mixture - likelihood < phi * log_odds else (low, middle)
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
