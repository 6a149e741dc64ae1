"""The `nce-sim` command: exit status 0 done, 2 the user's input is wrong, 1 anything else."""

import sys

import typer

from nce_sim import __version__
from nce_sim.cli import (
    cost,
    describe,
    designs,
    explore,
    inject,
    protection,
    rank,
    reconfigure,
    report,
    run,
    safety,
    simulate,
    studies,
    sweep,
)
from nce_sim.errors import InputError

INTERRUPTED = 130
"""The status with which typer leaves after Ctrl-C."""

app = typer.Typer(
    name="nce-sim",
    help="How reliable, fast and frugal is a neural network engine? Start with: nce-sim run",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("run")(run.run)
app.command("rank")(rank.rank_neurons)
app.command("simulate")(simulate.simulate_split)
app.command("inject")(inject.inject_faults)
app.command("safety")(safety.safety)
app.command("balance")(studies.balance)
app.command("granularity")(studies.granularity_study)
app.command("designs")(designs.compare_designs)
app.command("sweep")(sweep.sweep)
app.command("explore")(explore.explore)
app.command("reconfigure")(reconfigure.reconfigure)
app.command("cost")(cost.machine_cost)
app.command("protection")(protection.protection)
app.command("report")(report.make_report)
app.command("list")(describe.list_bundled)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nce-sim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; a user's mistake gives one message and status 2."""
    try:
        app()
    except InputError as mistake:
        typer.echo(f"nce-sim: {mistake}", err=True)
        sys.exit(2)
    except SystemExit as leaving:
        if leaving.code != INTERRUPTED:
            raise
        typer.echo("nce-sim: interrupted; the same command goes on where it stopped", err=True)
        sys.exit(1)
