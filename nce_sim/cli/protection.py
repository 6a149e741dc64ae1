"""`nce-sim protection`: what each scheme detects, corrects and misses, and its coverages."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nce_sim.cli.options import JsonOption

if TYPE_CHECKING:
    from nce_sim.config.array_scheme import ArrayScheme
    from nce_sim.protection.schemes import MemoryScheme

    AnyScheme = ArrayScheme | MemoryScheme


def protection(
    machine: Annotated[
        str | None, typer.Option(help="Also the schemes that this machine's file adds.")
    ] = None,
    coverages: Annotated[
        bool, typer.Option(help="Residual and latent coverage by part, with reasons.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what each protection scheme detects, corrects and misses.

    Example: nce-sim protection --coverages
    """
    from nce_sim.config.machine import load_machine
    from nce_sim.protection.schemes import ARRAY_SCHEMES, MEMORY_SCHEMES

    own = load_machine(machine).config.schemes if machine is not None else ()
    found: dict[str, list[AnyScheme]] = {
        "lanes": [*ARRAY_SCHEMES.values(), *own],
        "memory words": list(MEMORY_SCHEMES.values()),
    }
    rows = {kind: [_row(each) for each in schemes] for kind, schemes in found.items()}
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    for kind, of_kind in rows.items():
        _print_words(console, kind, of_kind)
        if coverages:
            _print_coverages(console, kind, of_kind)


def _row(scheme: "AnyScheme") -> dict[str, Any]:
    """Return one scheme as plain data, single flipped bits as the fault."""
    from nce_sim.protection.coverage import FAULT_CLASSES, coverage, parts_of
    from nce_sim.protection.in_words import in_words

    return {
        "name": scheme.name,
        **asdict(in_words(scheme)),
        "coverages": [
            {"part": part, "fault": fault, **asdict(coverage(scheme, fault, part))}
            for part in parts_of(scheme)
            for fault in FAULT_CLASSES
        ],
    }


def _print_words(console: Console, kind: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=kind, title_justify="left", box=None, pad_edge=False)
    table.add_column("scheme", style="bold", no_wrap=True)
    for name in ("detects", "corrects", "misses"):
        table.add_column(name)
    for row in rows:
        table.add_row(row["name"], row["detects"], row["corrects"], row["misses"])
    console.print(table)
    console.print()


def _print_coverages(console: Console, kind: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{kind}: coverage of a single flipped bit", title_justify="left", box=None)
    for name in ("scheme", "part", "fault"):
        table.add_column(name, no_wrap=True)
    for name in ("residual", "latent"):
        table.add_column(name, justify="right")
    table.add_column("why")
    for row in rows:
        for each in row["coverages"]:
            table.add_row(
                row["name"], each["part"], each["fault"], f"{each['residual']:.3g}",
                f"{each['latent']:.3g}", f"{each['residual_reason']} {each['latent_reason']}",
            )  # fmt: skip
    console.print(table)
    console.print()
