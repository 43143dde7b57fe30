"""Numbers as people read them: shares, points, odds, counts and durations. All rates and differences are fractions."""

import math

MOST_ODDS = 1e9  # odds are shown no higher than this


def count(value: float) -> str:
    """How many, in groups of thousands; small averages with two significant digits: 28,904 or 0.042."""
    return f"{value:,.0f}" if value >= 10 else two_digits(value)


def about(value: float) -> str:
    """How many, roughly: two significant digits, 1,200."""
    return count(round(value, 1 - math.floor(math.log10(value)))) if value >= 10 else two_digits(math.ceil(value))


def odds(log_odds: float) -> float:
    """Odds that can be shown, of natural log odds: at most MOST_ODDS."""
    return float(f"{math.exp(min(log_odds, math.log(MOST_ODDS))):.6g}")


def to_one(value: float) -> str:
    """Odds as a sentence has them: 0.4 : 1, 37 : 1. Never rounded up to the threshold that they miss."""
    if value >= 10:
        return f"{math.floor(value + 1e-9):,} : 1"
    return f"{two_digits(value) if value >= 0.01 else '0.00'} : 1"


def percent(share: float) -> str:
    """A share that somebody wrote down: 1 %, 0.25 %."""
    return f"{100 * share:.10g} %"


def points(fraction: float) -> str:
    """A difference of shares in percentage points, with two significant digits: 1.3 points."""
    text = two_digits(100 * fraction)
    return f"{text} point" if text == "1" else f"{text} points"


def shares(*values: float) -> list[str]:
    """Shares side by side, with as many decimals as the smallest that is not 0 needs: 5.1 %, 0.042 %."""
    least = min((100 * value for value in values if value > 0), default=100.0)
    decimals = min(4, max(1, 1 - math.floor(math.log10(least))))
    return [f"{100 * value:.{decimals}f} %" for value in values]


def sentence(text: str) -> str:
    """What a container or the API server says, so that other sentences can stand beside it."""
    return ended(f"{text[:1].upper()}{text[1:]}")


def ended(text: str) -> str:
    """The text with its full stop."""
    text = text.rstrip()
    return text if not text or text.endswith((".", "!", "?", "…", ".)")) else f"{text}."


def within(difference: float, low: float, high: float) -> str:
    """A difference of shares and its interval, as finely as that is known: +0.2 points, between -0.6 and +1.0."""
    decimals = _decimals(high - low)
    each, lowest, highest = (f"{100 * value:+.{decimals}f}" for value in (difference, low, high))
    return f"{each} points, between {lowest} and {highest}"


def between(share: float, low: float, high: float) -> tuple[str, str, str]:
    """A share and the ends of its interval, as finely as that is known: 1.1 %, 0.0 %, 9.3 %."""
    share_text, lowest, highest = (f"{100 * value:.{_decimals(high - low)}f} %" for value in (share, low, high))
    return share_text, lowest, highest


def _decimals(width: float) -> int:
    """Of percentages that are known to within this fraction."""
    return min(4, max(1, 1 - math.floor(math.log10(max(100 * width, 1e-4)))))


def duration(minutes: float) -> str:
    """A duration as people say it: 40 s, 16 min, 3.5 h, 2 days."""
    for unit, size, most in (("s", 1 / 60, 90), ("min", 1.0, 120), ("h", 60.0, 48)):
        if minutes / size < most:
            return f"{two_digits(minutes / size)} {unit}"
    return f"{two_digits(minutes / 1440)} days"


def two_digits(value: float) -> str:
    """Two significant digits, or more where they are before the point; never an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:,.0f}"
