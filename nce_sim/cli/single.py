"""`nce-sim rank` and `nce-sim simulate`: one ranking, one split."""

import json
import re
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nce_sim.cli.progress import stages
from nce_sim.errors import InputError
from nce_sim.files import check_writable

if TYPE_CHECKING:
    from nce_sim.cli.progress import Stage
    from nce_sim.config.machine_schema import MachineConfig
    from nce_sim.faults.models import FaultModel
    from nce_sim.report.run_report import RunReport
    from nce_sim.resilience.ranking import Ranking
    from nce_sim.workload.datasets import Dataset
    from nce_sim.workload.graph import Workload

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all random draws.")]


def rank_neurons(
    model: Annotated[str, typer.Argument(help="Bundled network or path of a model.yaml.")],
    method: Annotated[
        str, typer.Option(help="lrp, gradient, fault-aware, random, activation ...")
    ] = "lrp",
    fault: Annotated[
        str | None,
        typer.Option(help="That fault-aware ranks for: dropout=0.5 (p), or noise=3 (sigma)."),
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
    ranking = _make_ranking(model, network, method, images, precision, device, seed, fault)
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
    granularity: Annotated[str, typer.Option(help="neuron, block, channel or layer.")] = "neuron",
    block: Annotated[
        str | None,
        typer.Option(help="Rows x columns of positions of a block; 4x4 if not given."),
    ] = None,
    ranking: Annotated[Path | None, typer.Option(help="A saved ranking.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Rank anew by this method; lrp if not given.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images to rank with; 500 if not given.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Images that follow one another while weights stay.")
    ] = 1,
    mismatch_rate: Annotated[
        float,
        typer.Option(help="How often copies of a lane differ in a cycle, 0 to 1: waves run again."),
    ] = 0.0,
    bottleneck: Annotated[
        bool,
        typer.Option("--bottleneck", help="Simulate with more of each resource: which one gains?"),
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(help="File for a trace, .json or .json.gz, that ui.perfetto.dev opens."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a page, figures, summary.json, timeline.csv.")
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Simulate one split on a machine: latency, throughput, energy and where the cycles went.

    Example: nce-sim simulate vgg16 --method random --fraction 0.4 --trace vgg16.json.gz
    """
    from nce_sim.config.machine import load_machine
    from nce_sim.machine.engine import simulate
    from nce_sim.report.run_report import RunReport, summary
    from nce_sim.resilience.split import check_fraction, check_units
    from nce_sim.study.bottleneck import find_bottleneck
    from nce_sim.workload.models import load_model

    check_fraction(fraction, "--fraction")
    size = None if block is None else _block_size(block)
    check_units(granularity, size)
    _check_outputs(out, trace)
    chosen = load_machine(machine)
    _check_mismatch_rate(mismatch_rate, chosen.config)
    network = load_model(model)
    split = choose_ranking(model, network, ranking, method, images, seed).split(
        fraction, granularity, block=size
    )
    run = simulate(network, chosen, split, batch=batch, mismatch_rate=mismatch_rate, seed=seed)
    found = None
    with stages(Console(stderr=True)) as stage:
        if bottleneck:
            found = find_bottleneck(
                network, split, run, mismatch_rate=mismatch_rate, seed=seed, begin=stage
            )
        report = RunReport(network.name, split, run, found)
        _write(report, network, out, trace, stage)
    if as_json:
        typer.echo(json.dumps(summary(report), indent=2))
        return
    _print(report, out, trace)


def _block_size(text: str) -> tuple[int, int]:
    """Return rows and columns of "4x4"."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if found is None:
        raise InputError(f"--block is rows x columns, such as 4x4, not '{text}'")
    return int(found[1]), int(found[2])


def _check_outputs(out: Path | None, trace: Path | None) -> None:
    """Raise InputError unless both places can be written to; it costs nothing to know at once."""
    if out is not None:
        check_writable(out)
    if trace is None:
        return
    if not trace.name.endswith((".json", ".json.gz")):
        raise InputError(f"--trace {trace} must end in .json or .json.gz")
    if trace.is_dir():
        raise InputError(f"--trace {trace} is a folder: name a file for the trace")
    check_writable(trace.parent, "--trace")


def _check_mismatch_rate(rate: float, machine: "MachineConfig") -> None:
    """Raise InputError for what is no rate, and for a machine on which it would mean nothing."""
    from nce_sim.protection.schemes import ARRAY_SCHEMES

    if not isfinite(rate) or not 0 <= rate <= 1:
        raise InputError(f"--mismatch-rate must be a number from 0 to 1, not {rate}")
    schemes = [machine.scheme_of(array) for array in machine.arrays]
    if rate and not any(scheme.retries for scheme in schemes):
        known = ", ".join(name for name, scheme in ARRAY_SCHEMES.items() if scheme.retries)
        names = " and ".join(scheme.name for scheme in schemes)
        raise InputError(
            f"--mismatch-rate means nothing on machine '{machine.name}', whose lanes are protected "
            f"by {names}: waves run again with {known}"
        )


def _write(
    report: "RunReport", network: "Workload", out: Path | None, trace: Path | None, stage: "Stage"
) -> None:
    """Write the trace and the folder that are asked for."""
    if trace is not None:
        from nce_sim.report.perfetto import write_trace

        advance = stage("writing the trace", 1)
        write_trace(report.run, network.layers, trace)
        advance(1)
    if out is not None:
        from nce_sim.report.run_page import write_run

        advance = stage("writing the page", 1)
        write_run(report, out)
        advance(1)


def _print(report: "RunReport", out: Path | None, trace: Path | None) -> None:
    from nce_sim.report.run_terminal import print_run

    print_run(report, Console())
    if trace is not None:
        typer.echo(f"{trace} is the trace: open it in ui.perfetto.dev")
    if out is not None:
        typer.echo(f"{out / 'index.html'} is the page")


def choose_ranking(
    model: str, network: "Workload", ranking: Path | None, method: str | None, images: int | None,
    seed: int,
) -> "Ranking":  # fmt: skip
    """Return the saved ranking, or rank anew: by LRP with 500 images if nothing else is asked."""
    from nce_sim.resilience.ranking import Ranking

    if ranking is None:
        return _make_ranking(model, network, method or "lrp", images or 500, "float32", "cpu", seed)
    if method is not None or images is not None:
        raise InputError("--ranking is a saved ranking: give it without --method and --images")
    return Ranking.load(ranking, network)


def _fault(
    text: str, network: "Workload", data: "Dataset", device: str
) -> "FaultModel":  # fmt: skip
    """Return the fault model of "dropout=0.5" or "noise=3"; noise is measured on the images."""
    from nce_sim.accuracy.evaluate import mean_activation
    from nce_sim.faults.models import Dropout, GaussianNoise

    kind, _, level = text.partition("=")
    try:
        value = float(level)
    except ValueError:
        kind = ""
    if kind == "dropout":
        return Dropout(value)
    if kind == "noise":
        return GaussianNoise(value, mean_activation(network, data.images, device=device))
    raise InputError(f"--fault must be dropout=P or noise=SIGMA, such as dropout=0.5, not '{text}'")


def _make_ranking(
    model: str, network: "Workload", method: str, images: int, precision: str, device: str,
    seed: int, fault: str | None = None,
) -> "Ranking":  # fmt: skip
    """Rank with the first images of the model's own data set."""
    from nce_sim.resilience.ranking import rank
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.models import load_description

    if method == "random":
        return rank(network, None, None, "random", seed=seed)
    if method == "fault-aware" and fault is None:
        raise InputError(
            "a fault-aware ranking needs its fault: make it with nce-sim rank --method fault-aware "
            "--fault dropout=0.5, and give it as --ranking"
        )
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
            fault=None if fault is None else _fault(fault, network, data, device),
            device=device, data=f"{name}/{part}, first {images}",
            progress=lambda done, _: advance(done),
        )  # fmt: skip
