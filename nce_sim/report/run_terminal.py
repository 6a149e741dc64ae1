"""One simulated split on the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from nce_sim.report.run_report import RunReport, Table, headline, tables


def print_run(report: RunReport, console: Console) -> None:
    """Print what the run took, where the cycles went, what moved, and what it cost."""
    for sentence in headline(report):
        console.print(Text(sentence), soft_wrap=True)
    for table in tables(report):
        console.print()
        console.print(_aligned(table))


def _aligned(table: Table) -> TerminalTable:
    """Return a table of names on the left and numbers on the right."""
    aligned = TerminalTable(
        title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        padding=(0, 2, 0, 0), pad_edge=False,
    )  # fmt: skip
    for number, heading in enumerate(table.headings):
        aligned.add_column(
            heading, justify="right" if number else "left", no_wrap=True, vertical="bottom"
        )
    for row in table.rows:
        aligned.add_row(row.name, *row.cells)
    return aligned
