"""Draw the figures of these pages that need no long run.

python docs/make_figures.py
"""

from pathlib import Path

from nce_sim.config.voltage import load_voltage
from nce_sim.report.style import png_bytes
from nce_sim.report.voltage_figure import figure_voltage

FIGURES = Path(__file__).parent / "figures"


def main() -> None:
    """Write docs/figures/voltage.png."""
    tables = [load_voltage("28nm-near-threshold"), load_voltage("28nm-fpga-bram")]
    figure = figure_voltage(tables, clocks_mhz=(500, 400))
    (FIGURES / "voltage.png").write_bytes(png_bytes(figure))


if __name__ == "__main__":
    main()
