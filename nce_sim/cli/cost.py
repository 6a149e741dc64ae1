"""`nce-sim cost`: what machines alone cost, each figure with its source."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nce_sim import __version__
from nce_sim.cli.options import JsonOption
from nce_sim.errors import InputError
from nce_sim.files import check_writable

Rows = list[dict[str, str | float]]


def machine_cost(
    machines: Annotated[
        list[str], typer.Argument(help="Bundled machines, or paths of YAML files.")
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="Two or more machines side by side.")
    ] = False,
    technology: Annotated[
        str | None,
        typer.Option(help="Another technology table: a bundled name or the path of a YAML file."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a page, figures and all tables as CSV.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show area, power, peak throughput and raw fault rates of machines, with their sources.

    Example: nce-sim cost nce-28nm nce-int8 --compare
    """
    from nce_sim.config.machine import load_machine
    from nce_sim.report.machine_cost import MachineCost, comparison_rows, headline, summary

    if compare and len(machines) < 2:
        raise InputError("--compare puts machines side by side: name two or more of them")
    if out is not None:
        check_writable(out)
    costs = [MachineCost.of(load_machine(name, technology=technology)) for name in machines]
    if len({cost.name for cost in costs}) < len(costs):
        raise InputError("two of the machines have the same name: give each its own")
    if out is not None:
        from nce_sim.report.machine_cost_page import machine_cost_report
        from nce_sim.report.study_page import write_study

        write_study(machine_cost_report(costs, __version__), out)
    if as_json:
        typer.echo(json.dumps([summary(cost) for cost in costs], indent=2))
        return
    console = Console()
    for cost in costs:
        console.print(headline(cost), soft_wrap=True, highlight=False)
    if compare:
        _print(console, "Side by side", comparison_rows(costs))
    else:
        for cost in costs:
            _print_machine(console, cost)
    if out is not None:
        console.print(f"{out / 'index.html'} is the page", soft_wrap=True)


def _print_machine(console, cost) -> None:  # type: ignore[no-untyped-def]
    from nce_sim.report.machine_cost import (
        action_rows,
        area_rows,
        component_rows,
        failure_rows,
    )

    _print(console, "Area and power by component", component_rows(cost))
    if cost.failures:
        _print(console, "Raw failure rates, before any protection", failure_rows(cost))
    else:
        console.print(
            f"No raw failure rates: {cost.no_failures_because}", soft_wrap=True, highlight=False
        )
    table = cost.machine.technology
    wiring = table.wiring_factor.value
    _print_wide(console, f"Area by part, wiring factor {wiring:g} included in mm2", area_rows(cost))
    _print_wide(console, "Energy by action", action_rows(cost))
    console.print(
        f"Figures of technology {table.name} ({table.description}); * marks assumptions:",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    for figure in cost.figures.values():
        star = " *" if figure["assumption"] else ""
        console.print(
            f"  {figure['figure']}{star} = {figure['value']:g} "
            f"[{figure['low']:g}, {figure['high']:g}]: {figure['source']}",
            soft_wrap=True, highlight=False, markup=False,
        )  # fmt: skip
    console.print(f"  sram.rows: {table.sram.source}", soft_wrap=True, highlight=False)


def _print(console: Console, title: str, rows: Rows) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in rows[0]:
        number = isinstance(rows[0][column], float | int)
        table.add_column(column.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console.print(table)


def _print_wide(console: Console, title: str, rows: Rows) -> None:
    """Print rows in aligned columns that no terminal's width cuts: formulas are long."""
    cells = [[column.replace("_", " ") for column in rows[0]]]
    cells += [[_text(value) for value in row.values()] for row in rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    numbers = [isinstance(value, float | int) for value in rows[0].values()]
    console.print(f"[bold]{title}[/]")
    for row in cells:
        aligned = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numbers, strict=True)
        )
        console.print(f"  {'  '.join(aligned).rstrip()}", soft_wrap=True, highlight=False)
    console.print()


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value
