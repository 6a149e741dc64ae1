"""`nce-sim rank` and `nce-sim simulate`: one ranking, one split."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nce_sim.cli.progress import stages
from nce_sim.errors import InputError
from nce_sim.files import check_writable, write_atomically

if TYPE_CHECKING:
    from nce_sim.machine.engine import Run
    from nce_sim.resilience.ranking import Ranking
    from nce_sim.resilience.split import Split
    from nce_sim.workload.graph import Workload

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all random draws.")]


def rank_neurons(
    model: Annotated[str, typer.Argument(help="Bundled network or path of a model.yaml.")],
    method: Annotated[str, typer.Option(help="lrp, gradient, random ...")] = "lrp",
    images: Annotated[int, typer.Option(min=1, help="Training images to average over.")] = 5000,
    precision: Annotated[str, typer.Option(help="float32, or mixed (lrp only).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="File for the ranking.")] = Path("ranking.npz"),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Rank all neurons of a network, least resilient first, and save the ranking.

    Example: nce-sim rank allcnn-fashion --method lrp --images 2000 --out lrp.npz
    """
    from nce_sim.workload.execute import check_device
    from nce_sim.workload.models import load_model

    check_device(device)
    network = load_model(model)
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: name a file for the ranking")
    check_writable(out.parent)
    ranking = _make_ranking(model, network, method, images, precision, device, seed)
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


def simulate_split(
    model: Annotated[str, typer.Argument(help="Bundled network or path of a model.yaml.")],
    machine: Annotated[str, typer.Option(help="Bundled machine or path of a YAML file.")] = (
        "nce-28nm"
    ),
    fraction: Annotated[float, typer.Option(help="Share of the neurons on PEs, 0 to 1.")] = 0.4,
    granularity: Annotated[str, typer.Option(help="neuron, channel or layer.")] = "neuron",
    ranking: Annotated[Path | None, typer.Option(help="A saved ranking.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Rank anew by this method. [default: lrp]")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images to rank with. [default: 500]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for summary.json and timeline.csv.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Simulate one split on a machine: latency, energy, area and where the cycles went.

    Example: nce-sim simulate vgg16 --method random --fraction 0.4
    """
    from nce_sim.config.machine import load_machine
    from nce_sim.machine.engine import simulate
    from nce_sim.resilience.ranking import Ranking
    from nce_sim.resilience.split import check_fraction
    from nce_sim.workload.models import load_model

    check_fraction(fraction, "--fraction")
    if ranking is not None and (method is not None or images is not None):
        raise InputError("--ranking is a saved ranking: give it without --method and --images")
    if out is not None:
        check_writable(out)
    chosen = load_machine(machine)
    network = load_model(model)
    if ranking is not None:
        ranked = Ranking.load(ranking, network)
    else:
        ranked = _make_ranking(
            model, network, method or "lrp", images or 500, "float32", "cpu", seed
        )
    split = ranked.split(fraction, granularity)
    run = simulate(network, chosen, split)
    summary = summarise(run, split)
    if out is not None:
        write_atomically(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
        write_atomically(out / "timeline.csv", timeline_csv(run).encode())
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    _print_run(run, split)
    if out is not None:
        typer.echo(f"wrote {out / 'summary.json'} and {out / 'timeline.csv'}")


def _make_ranking(
    model: str, network: "Workload", method: str, images: int, precision: str, device: str,
    seed: int,
) -> "Ranking":  # fmt: skip
    """Rank with the first images of the model's own data set."""
    from nce_sim.resilience.ranking import rank
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.models import load_description

    if method == "random":
        return rank(network, None, None, "random", seed=seed)
    name = load_description(model)[0].data
    if name is None:
        raise InputError(
            f"model '{model}' names no data set to rank with: use --method random, or rank it "
            f"with your own images in Python"
        )
    part = "ranking" if images <= 5000 else "train"
    data = load_data(name, part).first(images)
    with stages(Console(stderr=True)) as stage:
        advance = stage(f"ranking by {method}", images)
        return rank(
            network, data.images, data.labels, method, seed=seed, precision=precision,
            device=device, data=f"{name}/{part}, first {images}",
            progress=lambda done, _: advance(done),
        )  # fmt: skip


def summarise(run: "Run", split: "Split") -> dict[str, object]:
    """Return one split's run as plain data, units in the names."""
    return {
        "granularity": split.granularity,
        "asked_fraction": split.asked_fraction,
        "unprotected_fraction": split.unprotected_fraction,
        **run.summary(),
    }


def timeline_csv(run: "Run") -> str:
    """Return the timeline as CSV, one span a line, times in cycles."""
    lines = ["resource,what,layer,tile,start_cycle,end_cycle"]
    lines += [
        f"{span.resource},{span.what},{span.layer},{span.tile},{span.start_cycle},{span.end_cycle}"
        for span in run.timeline
    ]
    return "\n".join(lines) + "\n"


def _print_run(run: "Run", split: "Split") -> None:
    console = Console()
    console.print(f"{split}; {run.mac_share_unprotected:.2%} of the MACs", soft_wrap=True)
    console.print(
        f"latency {run.latency_cycles:,} cycles = {run.latency_us:,.1f} us at "
        f"{run.machine.config.clock_mhz:g} MHz",
        soft_wrap=True,
    )
    table = Table(title="where the cycles of each array went", box=None, title_justify="left")
    table.add_column("array")
    causes = next(iter(run.cycles_by_cause.values()))
    for cause in causes:
        table.add_column(cause, justify="right")
    table.add_column("useful lane-cycles", justify="right")
    for domain, cycles in run.cycles_by_cause.items():
        shares = [f"{count / run.latency_cycles:.1%}" for count in cycles.values()]
        table.add_row(domain, *shares, f"{run.utilisation(domain):.1%}")
    console.print(table)
    costs = Table(title="energy and area by component", box=None, title_justify="left")
    for column in ("component", "energy uJ", "area mm2"):
        costs.add_column(column, justify="left" if column == "component" else "right")
    energies, areas = run.energy.by_component_pj, run.area.by_component_mm2
    for name in dict.fromkeys([*energies, *areas]):
        costs.add_row(
            name,
            f"{energies[name] / 1e6:.2f}" if name in energies else "",
            f"{areas[name]:.4f}" if name in areas else "",
        )
    costs.add_row("total", f"{run.energy.total_pj / 1e6:.2f}", f"{run.area.total_mm2:.4f}")
    costs.add_row(
        "range",
        f"{run.energy.low_pj / 1e6:.1f} to {run.energy.high_pj / 1e6:.1f}",
        f"{run.area.low_mm2:.2f} to {run.area.high_mm2:.2f}",
    )
    console.print(costs)
