"""The report of a main job: a page with everything on it, and the tables and figures as files."""

from pathlib import Path
from typing import Any

from nce_sim.report.archive import json_bytes
from nce_sim.report.figures import CHAPTERS, draw_all
from nce_sim.report.folder import replace_files
from nce_sim.report.headline import headline, in_words
from nce_sim.report.html import inline_svg, render
from nce_sim.report.selection import hardest_faults, lead_method
from nce_sim.report.style import method_name, png_bytes, svg_bytes
from nce_sim.report.summary import PARTS, REST, SplitRow, split_rows
from nce_sim.report.tables import accuracy_rows, csv_bytes, hardware_rows, layer_rows
from nce_sim.report.wording import interval, percent, with_interval
from nce_sim.resilience.ranking import Origin
from nce_sim.study.main_job import MainJobResult

TEMPLATE = "page.html.j2"

NOT_MODELLED = (
    "PPEs and protected memory are taken as fault-free: their schemes cost time, energy and area, "
    "but what they let through is not simulated.",
    "Faults strike the outputs of neurons only, each independently, as in the paper; lanes, "
    "buffers and the bus are struck by nce-sim inject.",
    "Accuracy is that of the network in the precision named below, which need not be the number "
    "format of the machine.",
    "Nothing is fetched ahead over a layer's barrier but the protection map, and pooling starts "
    "after it; inferences do not overlap.",
    "The memory's bursts, rows and refreshes are counted and enter as rates; they are not "
    "simulated one by one. Conflicts between the banks of a buffer are not modelled.",
)
"""What a reader must know before trusting a number."""


def write_report(result: MainJobResult, folder: Path) -> None:
    """Write tables, results.json, figures and index.html into `folder`.

    The same result gives the same bytes. Only files of the report are replaced.
    Raises InputError if the folder cannot be written to.
    """
    figures = {name: (svg_bytes(fig), png_bytes(fig)) for name, fig in draw_all(result).items()}
    contents = {
        "accuracy.csv": csv_bytes(accuracy_rows(result)),
        "hardware.csv": csv_bytes(hardware_rows(result)),
        "layers.csv": csv_bytes(layer_rows(result)),
        "results.json": json_bytes(result),
    }
    for name, (svg, png) in figures.items():
        contents[f"figures/{name}.svg"] = svg
        contents[f"figures/{name}.png"] = png
    contents["index.html"] = page_bytes(result, {name: svg for name, (svg, _) in figures.items()})
    replace_files(folder, contents, _owned())


def _owned() -> list[str]:
    """Return every name that a report may use for a figure."""
    return [f"figures/{chapter.name}.{end}" for chapter in CHAPTERS for end in ("svg", "png")]


def page_bytes(result: MainJobResult, figures: dict[str, bytes]) -> bytes:
    """Return the page in UTF-8; `figures` are SVG by name."""
    return render(
        TEMPLATE,
        title=f"{result.network.name} on {result.machine.config.name}",
        machine=result.machine.config,
        technology=result.machine.technology,
        area=result.area,
        confidence=percent(result.fault_free.confidence, 0),
        headline=headline(result),
        table=_main_table(result),
        figures=[
            {
                "name": chapter.name,
                "caption": chapter.caption,
                "svg": inline_svg(chapter.name, figures[chapter.name]),
            }
            for chapter in CHAPTERS
            if chapter.name in figures
        ],
        not_modelled=NOT_MODELLED,
        making=_making(result),
        rankings=[_ranking(ranking.origin) for ranking in result.rankings.values()],
    )


def _main_table(result: MainJobResult) -> dict[str, Any]:
    """Return headings and cells of the main table."""
    methods = [method_name(method) for method in result.plan.methods]
    return {
        "lead": method_name(lead_method(result)),
        "faults": [in_words(fault) for fault in hardest_faults(result)],
        "methods": methods,
        "parts": [*PARTS, REST],
        "rows": [_cells(row) for row in split_rows(result)],
    }


def _cells(row: SplitRow) -> dict[str, Any]:
    energy = row.run.energy
    return {
        "neurons": f"{100 * row.neurons:.1f}",
        "macs": f"{100 * row.macs:.1f}",
        "accuracy": [
            {"value": f"{100 * share.value:.1f}", "interval": interval(share)}
            for share in row.accuracy.values()
        ],
        "latency": f"{row.run.latency_us:,.1f}",
        "total": f"{row.total_uj:,.1f}",
        "total_range": f"[{energy.low_pj / 1e6:,.0f}, {energy.high_pj / 1e6:,.0f}]",
        "parts": [f"{uj:,.1f}" for uj in row.energy_uj.values()],
    }


def _making(result: MainJobResult) -> list[tuple[str, str]]:
    """Return what was computed, as pairs of a word and its value."""
    plan, network = result.plan, result.network
    images = plan.test_images
    reference = result.float32_fault_free
    fault_free = result.fault_free
    return [
        ("Network", f"{network.name}: {network.neurons:,} neurons, {network.macs:,} MACs"),
        ("Network hash", network.identity),
        ("Machine", f"{result.machine.config.name}: {result.machine.config.description}"),
        ("Technology", f"{result.machine.technology.name}: "
                       f"{result.machine.technology.description}"),
        ("Fractions", _numbers(plan.fractions)),
        ("Dropout p", _numbers(plan.dropout_probabilities)),
        ("Noise sigma", _numbers(plan.noise_sigmas)),
        ("Test images", f"the first {images:,} of {result.data}, {plan.realisations} "
                        f"realisation(s) of the faults each"),
        ("Inferences under faults", f"{plan.inferences:,}"),
        ("Arithmetic", f"{plan.precision} on {plan.device}"),
        ("Fault-free accuracy", f"{with_interval(fault_free)} in {plan.precision}, "
                                f"{with_interval(reference)} in float32; the same class for "
                                f"{with_interval(result.agreement)} of the images"),
        ("Seed", str(plan.seed)),
    ]  # fmt: skip


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"


def _ranking(origin: Origin) -> dict[str, str]:
    """Return the cells of a ranking's row: what made it, and how stable it is."""
    stable = "-" if origin.stability is None else f"{origin.stability:.4f}"
    return {
        "method": method_name(origin.method),
        "data": origin.data,
        "images": f"{origin.images:,}",
        "precision": origin.precision,
        "seed": "-" if origin.seed is None else str(origin.seed),
        "stability": stable,
    }
