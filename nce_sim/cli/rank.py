"""`nce-sim rank`: rank all neurons of a network, and save the ranking."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nce_sim.cli.compare import compare_methods
from nce_sim.cli.make_ranking import FAULT_METHODS, load_network, make_ranking
from nce_sim.cli.options import MODEL_HELP, DataOption, JsonOption, SeedOption
from nce_sim.cli.ranking_fault import AskedFault
from nce_sim.errors import InputError
from nce_sim.files import check_writable

if TYPE_CHECKING:
    from nce_sim.resilience.rules import Additions
    from nce_sim.workload.graph import Workload


def rank_neurons(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    method: Annotated[
        str,
        typer.Option(
            help="lrp, lrp-epsilon, lrp-gamma, gradient, gradient_x_activation, activation, "
            "fisher, conductance, fault-aware, fault-in-loop or random."
        ),
    ] = "lrp",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="What fault-aware and fault-in-loop rank for: dropout=0.5 (p) or noise=3 (sigma); "
            "fault-aware also flip=1e-7 (bit flips a lane and cycle) or dead-lanes=4. With "
            "--compare, repeat for several. [default there: dropout=0.5, noise=3]"
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
    compare: Annotated[
        str | None,
        typer.Option(
            help="Compare these methods, and saved rankings (.npz), with commas between them; or "
            "all (but fault-in-loop and the exhaustive ones). Writes a page with the scoreboard."
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training images to average over; all that are bundled for it if not given."
        ),
    ] = None,
    data: DataOption = None,
    precision: Annotated[
        str,
        typer.Option(
            help="float32; of lrp also mixed (relevance in bfloat16) or bf16 (the network as well)."
        ),
    ] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    additions: Annotated[
        str | None,
        typer.Option(
            help="Of lrp: a residual addition shares relevance by its branches' positive parts "
            "(positive) or by the branches themselves (signed). [default: positive]"
        ),
    ] = None,
    stop_at: Annotated[
        float | None,
        typer.Option(
            help="Stop early, when the Spearman correlation of two halves of the images is at "
            "least this (above 0, at most 1); looked at after 256, 512, 1024 ... images."
        ),
    ] = None,
    fraction: Annotated[
        list[float] | None,
        typer.Option(
            help="Of --compare: share of the neurons on PEs; repeat for a grid. "
            "[default: 0.2, 0.4, 0.6, 0.8, 0.9]"
        ),
    ] = None,
    test_images: Annotated[
        int | None,
        typer.Option(min=2, help="Of --compare: images to classify. [default: up to 1000]"),
    ] = None,
    realisations: Annotated[
        int | None,
        typer.Option(min=1, help="Of --compare: how often each is struck. [default: 1]"),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Of --compare: what the others are held against. [default: lrp]"),
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="Of --compare: which answers are harmful: top-1, costs=FILE.csv (labels x "
            "answers), confident=THRESHOLD, persistent=IMAGES or package.module:factory. "
            "[default: top-1]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the ranking, or folder of --compare. [default: ranking.npz, "
            "nce-rankings]"
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Rank all neurons of a network, least resilient first, and save the ranking.

    With --compare, measure instead how much accuracy the splits of several rankings lose.

    Example: nce-sim rank allcnn-fashion --method fault-aware --fault noise=3 --out aware.npz
    """
    from nce_sim.workload.execute import check_device

    check_device(device)
    network = load_network(model, data)
    only_compared = {
        "--fraction": fraction, "--test-images": test_images, "--realisations": realisations,
        "--reference": reference, "--outcome": outcome,
    }  # fmt: skip
    if compare is not None:
        if machine or site:
            raise InputError("--machine and --site do not go with --compare")
        for name, asked_for in (("--additions", additions), ("--stop-at", stop_at)):
            if asked_for is not None:
                raise InputError(
                    f"{name} does not go with --compare: save a ranking with it, and compare that"
                )
        compare_methods(
            model, network, compare, fault or (), fraction or (), images, test_images,
            realisations or 1, reference or "lrp", device, seed, out or Path("nce-rankings"),
            as_json, data, outcome,
        )  # fmt: skip
        return
    for option, given in only_compared.items():
        if given is not None:
            raise InputError(f"{option} goes with --compare")
    out = out or Path("ranking.npz")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file for the ranking")
    check_writable(out.parent)
    if bool(fault) != (method in FAULT_METHODS) or len(fault or ()) > 1:
        raise InputError(
            f"--fault goes with --method {' or '.join(FAULT_METHODS)}, which need one: "
            f"dropout=0.5; several go with --compare"
        )
    if not fault and (machine or site):
        raise InputError("--machine and --site say where --fault flip or dead-lanes strikes")
    asked = AskedFault(fault[0], machine, site) if fault else None
    ranking = make_ranking(
        model, network, method, images, precision, device, seed, asked, data,
        additions=_additions(additions, network, method), stop_at=stop_at,
    )  # fmt: skip
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
    if stop_at is not None:
        console.print(f"{ranking.origin.images:,} images were looked at")
    if ranking.origin.stability is not None:
        console.print(f"Spearman correlation of two halves: {ranking.origin.stability:.4f}")
    console.print(f"saved to {out}", soft_wrap=True)


def _additions(given: str | None, network: "Workload", method: str) -> "Additions":
    """Return the rule for residual additions; refuse one where it has no effect."""
    from nce_sim.workload.layer import Kind

    if given is None:
        return "positive"
    if given not in ("positive", "signed"):
        raise InputError(f"--additions must be positive or signed, not '{given}'")
    if method != "lrp":
        raise InputError(f"--additions goes with --method lrp, not {method}")
    if not any(layer.others and layer.kind is not Kind.CONCAT for layer in network.layers):
        raise InputError(f"--additions has no effect: network '{network.name}' adds no branches")
    return "signed" if given == "signed" else "positive"
