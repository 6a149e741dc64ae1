"""How policies look in figures: a colour, a marker and a line for each kind."""

from typing import Any

from nce_sim.report.style import OTHER_COLOUR

COLOURS = {
    "static": "#6f6f6f", "threshold": "#e69f00", "tracking": "#0072b2", "power_cap": "#8064a2",
    "deadline": "#56b4e9", "pi": "#d55e00", "oracle": "#007a5a", "optimum": "#000000",
    "custom": "#cc79a7",
}  # fmt: skip
MARKERS = {
    "static": "s", "threshold": "^", "tracking": "o", "power_cap": "v", "deadline": "D",
    "pi": "P", "oracle": "h", "optimum": "*", "custom": "X",
}  # fmt: skip
LINES = {"static": "--", "oracle": "-.", "optimum": ":"}
"""Lines of policies that are not adaptive, which have solid ones."""

KIND_NAMES = {"power_cap": "power cap", "pi": "proportional-integral", "custom": "own"}
LONGEST_NAME = 24


def colour(kind: str) -> str:
    """Return the colour of a kind of policy."""
    return COLOURS.get(kind, OTHER_COLOUR)


def marker_look(kind: str) -> dict[str, Any]:
    """Return colour and marker of a kind of policy."""
    return {"color": colour(kind), "marker": MARKERS.get(kind, "x")}


def line_look(kind: str) -> dict[str, Any]:
    """Return colour and line of a kind of policy."""
    return {"color": colour(kind), "linestyle": LINES.get(kind, "-")}


def kind_name(kind: str) -> str:
    """Return a kind for people."""
    return KIND_NAMES.get(kind, kind)


def short_name(name: str) -> str:
    """Return a policy's name, cut where it is too long for a figure."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
