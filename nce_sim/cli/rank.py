"""`nce-sim rank`: rank all neurons of a network, and save the ranking."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nce_sim.cli.make_ranking import make_ranking
from nce_sim.cli.options import JsonOption, SeedOption
from nce_sim.cli.ranking_fault import AskedFault
from nce_sim.errors import InputError
from nce_sim.files import check_writable


def rank_neurons(
    model: Annotated[str, typer.Argument(help="Bundled network or path of a model.yaml.")],
    method: Annotated[
        str, typer.Option(help="lrp, gradient, fault-aware, random, activation ...")
    ] = "lrp",
    fault: Annotated[
        str | None,
        typer.Option(
            help="That fault-aware ranks for: dropout=0.5 (p), noise=3 (sigma), flip=1e-7 (bit "
            "flips a lane and cycle), or dead-lanes=4."
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(help="Machine that flip and dead-lanes strike: a bundled one, or a path."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(help="Where they strike: unprotected.output, .lane or .accumulator."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to average over.")] = 5000,
    precision: Annotated[str, typer.Option(help="float32, or mixed (lrp only).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="File for the ranking.")] = Path("ranking.npz"),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Rank all neurons of a network, least resilient first, and save the ranking.

    Example: nce-sim rank allcnn-fashion --method fault-aware --fault noise=3 --out aware.npz
    """
    from nce_sim.workload.execute import check_device
    from nce_sim.workload.models import load_model

    check_device(device)
    network = load_model(model)
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file for the ranking")
    check_writable(out.parent)
    if (fault is not None) != (method == "fault-aware"):
        raise InputError("--fault goes with --method fault-aware, and that needs it: dropout=0.5")
    if fault is None and (machine or site):
        raise InputError("--machine and --site say where --fault flip or dead-lanes strikes")
    asked = None if fault is None else AskedFault(fault, machine, site)
    ranking = make_ranking(model, network, method, images, precision, device, seed, asked)
    ranking.save(out)
    origin = asdict(ranking.origin)
    if as_json:
        lost = dict(ranking.lost_relevance)
        typer.echo(json.dumps({**origin, "lost_relevance": lost, "file": str(out)}, indent=2))
        return
    table = Table(title=f"{network.name}: {network.neurons:,} neurons by {method}", box=None)
    for column in ("layer", "neurons", "lost relevance", "never relevant"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name, values in ranking.relevance.items():
        lost_share = ranking.lost_relevance.get(name)
        table.add_row(
            name,
            f"{values.size:,}",
            "" if lost_share is None else f"{lost_share:.2%}",
            f"{(values == 0).mean():.2%}",
        )
    console = Console()
    console.print(table)
    if ranking.origin.stability is not None:
        console.print(f"Spearman correlation of two halves: {ranking.origin.stability:.4f}")
    console.print(f"saved to {out}", soft_wrap=True)
