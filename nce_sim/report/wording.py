"""Numbers as people read them; what belongs together is not broken over lines."""

from nce_sim.accuracy.statistics import Difference, Estimate, Proportion

SPACE = "\N{NO-BREAK SPACE}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as per cent."""
    return f"{100 * share:.{digits}f}{SPACE}%"


def with_interval(share: Proportion | Estimate) -> str:
    """Return a share as per cent with its interval: "86.9 % [82.1, 90.8]"."""
    return f"{percent(share.value)}{SPACE}{interval(share)}"


def interval(share: Proportion | Estimate) -> str:
    """Return the interval of a share in per cent: "[82.1, 90.8]"."""
    return f"[{100 * share.low:.1f},{SPACE}{100 * share.high:.1f}]"


def plus_minus(share: Proportion) -> str:
    """Return a share in per cent with the longer half of its interval: "86.9±4.8"."""
    return f"{100 * share.value:.1f}±{100 * share.half_width:.1f}"


def points(difference: Difference) -> str:
    """Return a difference in points of a hundred with its interval."""
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.value:+.1f}{SPACE}points [{low:+.1f},{SPACE}{high:+.1f}]"


def change(value: float, reference: float) -> str:
    """Return by how much `value` differs from `reference`, in per cent of it."""
    return f"{100 * (value / reference - 1):+.1f}{SPACE}%"


def join(parts: list[str]) -> str:
    """Return parts as "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
