"""`nce-sim report`: the page of a finished sweep, made again from what its folder keeps."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nce_sim.cli.options import JsonOption


def make_report(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a finished sweep, with points.csv and summary.json.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page. [default: the same folder]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the page, figures and table of a finished sweep again, without running anything.

    Example: nce-sim report nce-sweep
    """
    from rich.console import Console

    from nce_sim.files import check_writable
    from nce_sim.report.sweep_report import read_sweep, write_sweep

    rows, description = read_sweep(folder)
    target = folder if out is None else out
    check_writable(target)
    answer = write_sweep(rows, description, target)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    for sentence in answer:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    console.print(f"{target / 'index.html'} is the page", soft_wrap=True, highlight=False)
