"""One look for all figures: colours, markers, font sizes, and how a figure becomes a file.

The colours are those of Okabe and Ito, which people with any colour vision tell apart. The same
figure always gives the same bytes.
"""

from collections.abc import Callable
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.machine.probe import (
    BARRIER,
    COMPUTE,
    FILL,
    LOAD,
    PORTS,
    RETRY,
    STORE,
    SWITCH,
    VECTOR,
)
from nce_sim.schedule.domains import PROTECTED, UNPROTECTED

WIDTH_INCHES = 6.0
"""Width of every figure: at half a page the smallest print is still legible."""

PNG_DPI = 150
SMALL = 8.5
"""Font size of notes within a figure, in points."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "figure.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "nce-sim",
    "figure.facecolor": "white",
}

METHOD_NAMES = {
    "lrp": "LRP",
    "gradient": "Gradient",
    "random": "Random",
    "gradient_x_activation": "Gradient x activation",
    "activation": "Activation",
    "fault-aware": "Fault-aware",
    "fault-in-loop": "Faults in the loop",
    "exhaustive-loss": "Exhaustive, loss",
    "exhaustive-margin": "Exhaustive, margin",
    "lrp-epsilon": "LRP, epsilon rule",
    "lrp-gamma": "LRP, gamma rule",
    "fisher": "Fisher",
    "conductance": "Conductance",
}
METHOD_COLOURS = {
    "lrp": "#0072b2",
    "gradient": "#d55e00",
    "random": "#6f6f6f",
    "gradient_x_activation": "#56b4e9",
    "activation": "#b38f00",
    "fault-aware": "#007a5a",
    "fault-in-loop": "#66a61e",
    "exhaustive-loss": "#000000",
    "exhaustive-margin": "#8c564b",
    "lrp-epsilon": "#8064a2",
    "lrp-gamma": "#cc79a7",
    "fisher": "#333333",
    "conductance": "#e69f00",
}
METHOD_MARKERS = {
    "lrp": "o",
    "gradient": "s",
    "random": "^",
    "gradient_x_activation": "D",
    "activation": "v",
    "fault-aware": "P",
    "fault-in-loop": "H",
    "exhaustive-loss": "<",
    "exhaustive-margin": ">",
    "lrp-epsilon": "X",
    "lrp-gamma": "p",
    "fisher": "*",
    "conductance": "h",
}

DOMAIN_COLOURS = {PROTECTED: "#007a5a", UNPROTECTED: "#b3588b"}

COMPONENT_COLOURS = {
    "protected lanes": "#007a5a",
    "protected buffers": "#5fb89c",
    "protected vector unit": "#b9e0d3",
    "unprotected lanes": "#b3588b",
    "unprotected buffers": "#d79bbd",
    "unprotected vector unit": "#eed3e2",
    "bus": "#56b4e9",
    "external memory": "#1f4e79",
    "memory codec": "#1f4e79",
    "controller": "#f0c808",
    "leakage": "#8c8c8c",
}
"""Colours of the components of energy and area: a domain's parts share its hue."""

CAUSE_COLOURS = {
    COMPUTE: "#333333",
    PORTS: "#0072b2",
    FILL: "#9ecae1",
    RETRY: "#cc79a7",
    LOAD: "#e69f00",
    STORE: "#d1495b",
    VECTOR: "#009e73",
    SWITCH: "#f0e442",
    BARRIER: "#c4c4c4",
}
"""Colours of what an array does."""

PORT_COLOURS = {
    "load": "#56b4e9",
    "store": "#8064a2",
    "bus serves protected": DOMAIN_COLOURS[PROTECTED],
    "bus serves unprotected": DOMAIN_COLOURS[UNPROTECTED],
    "bus fetches the map": "#f0c808",
}
"""Colours of what a port moves, and of whom the bus serves."""

OTHER_COLOUR = "#bbaa88"

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Let `draw` run under the style; matplotlib's own settings stay as they are."""

    @wraps(draw)
    def under_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Drawn:
        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type, unused-ignore]
            return draw(*args, **kwargs)

    return under_style


def new_figure(height_inches: float, title: str) -> Figure:
    """Return an empty figure of the common width with a title."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    figure.suptitle(title)
    return figure


def method_name(method: str) -> str:
    """Return a ranking method's name for people."""
    return METHOD_NAMES.get(method, method)


def method_look(method: str) -> dict[str, Any]:
    """Return colour and marker of a ranking method."""
    return {
        "color": METHOD_COLOURS.get(method, OTHER_COLOUR),
        "marker": METHOD_MARKERS.get(method, "x"),
    }


def add_grid(axes: Axes, axis: str = "both") -> None:
    """Draw faint grid lines behind the data."""
    axes.grid(True, axis=axis)  # type: ignore[arg-type]


@styled
def svg_bytes(figure: Figure) -> bytes:
    """Return the figure as SVG without date and version."""
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


@styled
def png_bytes(figure: Figure) -> bytes:
    """Return the figure as PNG without version."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return file.getvalue()
