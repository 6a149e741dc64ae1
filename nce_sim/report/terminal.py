"""The main table on a terminal of 100 columns or more."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nce_sim.report.headline import doubts
from nce_sim.report.selection import hardest_faults, lead_method
from nce_sim.report.style import method_name
from nce_sim.report.summary import SplitRow, split_rows
from nce_sim.report.wording import plus_minus, with_interval
from nce_sim.study.main_job import MainJobResult

COLUMNS = {
    "lanes": ("PPE lanes", "PE lanes"),
    "buffers": ("PPE buffers", "PE buffers"),
    "bus + memory": ("Bus", "Memory"),
    "rest": ("Rest",),
}
"""Columns of energy and the parts of the main table that each sums up."""


def print_result(result: MainJobResult, console: Console, folder: Path | None = None) -> None:
    """Print accuracy and cost of every split, the area, and where the report lies if given."""
    rows = split_rows(result)
    console.print(_accuracy_table(result, rows))
    console.print(_cost_table(result, rows))
    area = result.area
    console.print(
        Text(
            f"Fault-free accuracy {with_interval(result.fault_free)} "
            f"({result.fault_free.trials:,} images, {result.plan.precision}). Area of "
            f"{result.machine.config.name}: {area.total_mm2:.2f} mm² "
            f"[{area.low_mm2:.2f}, {area.high_mm2:.2f}]."
        )
    )
    for doubt in doubts(result):
        console.print(Text(doubt))
    if folder is not None:
        console.print(Text(f"The report is in {folder}"), soft_wrap=True)


def _accuracy_table(result: MainJobResult, rows: list[SplitRow]) -> Table:
    """Accuracy in per cent with the longer half of its interval, by method and fault."""
    confidence = result.fault_free.confidence
    table = _new_table(f"Accuracy in %, ± half of the {confidence:.0%} interval")
    for fault in hardest_faults(result):
        for method in result.plan.methods:
            kind = f"{fault.name}\n{fault.level:g}"
            table.add_column(f"{method_name(method)}\n{kind}", justify="right")
    for row in rows:
        table.add_row(*_shares(row), *(plus_minus(share) for share in row.accuracy.values()))
    return table


def _cost_table(result: MainJobResult, rows: list[SplitRow]) -> Table:
    """Latency and energy of one inference."""
    table = _new_table(f"One inference, splits by {method_name(lead_method(result))}")
    table.add_column("latency\nus", justify="right")
    for name in (*COLUMNS, "total"):
        table.add_column(f"{name}\nuJ", justify="right")
    for row in rows:
        energy = [sum(row.energy_uj[part] for part in parts) for parts in COLUMNS.values()]
        table.add_row(
            *_shares(row),
            f"{row.run.latency_us:,.1f}",
            *(f"{uj:,.1f}" for uj in energy),
            f"{row.total_uj:,.1f}",
        )
    return table


def _new_table(title: str) -> Table:
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
    )
    table.add_column("neurons\non PEs", justify="right")
    table.add_column("MACs\non PEs", justify="right")
    return table


def _shares(row: SplitRow) -> tuple[str, str]:
    return f"{100 * row.neurons:.1f} %", f"{100 * row.macs:.1f} %"
