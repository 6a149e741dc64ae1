"""The folder of one simulated split: a page with figures and tables, and the numbers as files."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from nce_sim.report.causes_figure import figure_causes
from nce_sim.report.figures import (
    CAUSES_CAPTION,
    MACHINE_CAPTION,
    ROOFLINE_CAPTION,
    TIMELINE_CAPTION,
)
from nce_sim.report.folder import replace_files
from nce_sim.report.html import inline_svg, render
from nce_sim.report.machine_figure import figure_machine
from nce_sim.report.roofline_figure import figure_roofline
from nce_sim.report.run_report import RunReport, headline, summary, tables, timeline_csv
from nce_sim.report.style import png_bytes, svg_bytes
from nce_sim.report.timeline_figure import figure_timeline

TEMPLATE = "run.html.j2"
CAPTIONS = {
    "timeline": TIMELINE_CAPTION,
    "causes": CAUSES_CAPTION,
    "roofline": ROOFLINE_CAPTION,
    "machine": MACHINE_CAPTION,
}


def write_run(report: RunReport, folder: Path) -> None:
    """Write summary.json, timeline.csv, figures and index.html into `folder`, all or nothing.

    The same run gives the same bytes. Raises InputError if the folder cannot be written to.
    """
    drawn = {name: (svg_bytes(fig), png_bytes(fig)) for name, fig in _figures(report).items()}
    contents = {
        "summary.json": (json.dumps(summary(report), indent=2) + "\n").encode(),
        "timeline.csv": timeline_csv(report.run).encode(),
        "index.html": _page(report, {name: svg for name, (svg, _) in drawn.items()}),
    }
    for name, (svg, png) in drawn.items():
        contents[f"figures/{name}.svg"] = svg
        contents[f"figures/{name}.png"] = png
    replace_files(folder, contents, contents)


def _figures(report: RunReport) -> dict[str, Figure]:
    return {
        "timeline": figure_timeline(report.run, f"Timeline: {report.title}"),
        "causes": figure_causes(report.run, f"Cycles by cause: {report.title}"),
        "roofline": figure_roofline(report.run, f"Roofline: {report.title}"),
        "machine": figure_machine(report.run.machine),
    }


def _page(report: RunReport, figures: dict[str, bytes]) -> bytes:
    return render(
        TEMPLATE,
        title=report.title,
        machine=report.run.machine.config,
        headline=headline(report),
        figures=[
            {"name": name, "caption": CAPTIONS[name], "svg": inline_svg(name, svg)}
            for name, svg in figures.items()
        ],
        tables=tables(report),
    )
