"""`nce-sim simulate`: one split on a machine."""

import json
import re
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nce_sim.cli.make_ranking import choose_ranking, load_network
from nce_sim.cli.options import MODEL_HELP, DataOption, JsonOption, SeedOption, check_trace
from nce_sim.cli.progress import stages
from nce_sim.errors import InputError
from nce_sim.files import check_writable

if TYPE_CHECKING:
    from nce_sim.cli.progress import Stage
    from nce_sim.config.machine_schema import MachineConfig
    from nce_sim.report.run_report import RunReport
    from nce_sim.workload.graph import Workload


def simulate_split(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    machine: Annotated[str, typer.Option(help="Bundled machine or path of a YAML file.")] = (
        "nce-28nm"
    ),
    fraction: Annotated[float, typer.Option(help="Share of the neurons on PEs, 0 to 1.")] = 0.4,
    granularity: Annotated[str, typer.Option(help="neuron, block, channel or layer.")] = "neuron",
    block: Annotated[
        str | None,
        typer.Option(help="Rows x columns of positions of a block; 4x4 if not given."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Weigh damage against neurons, energy or latency; tells what protection takes."
        ),
    ] = None,
    ranking: Annotated[Path | None, typer.Option(help="A saved ranking.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Rank anew by this method; lrp if not given.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images to rank with; 500 if not given.")
    ] = None,
    data: DataOption = None,
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

    With --objective energy or latency, damage is weighed against what protecting costs on the
    machine (docs/method.md).

    Example: nce-sim simulate vgg16 --method random --fraction 0.4 --trace vgg16.json.gz
    """
    from nce_sim.config.machine import load_machine
    from nce_sim.machine.engine import simulate
    from nce_sim.report.run_report import RunReport, summary
    from nce_sim.resilience.split import check_fraction, check_units
    from nce_sim.study.bottleneck import find_bottleneck
    from nce_sim.study.protection_price import check_objective, price
    from nce_sim.study.protection_share import protection_share

    check_fraction(fraction, "--fraction")
    size = None if block is None else _block_size(block)
    check_units(granularity, size)
    if objective is not None:
        check_objective(objective, "--objective")
    if out is not None:
        check_writable(out)
    check_trace(trace)
    chosen = load_machine(machine)
    _check_mismatch_rate(mismatch_rate, chosen.config)
    network = load_network(model, data)
    ranked = choose_ranking(model, network, ranking, method, images, seed, data)
    if objective is not None:
        ranked = price(ranked, network, chosen, objective, batch=batch)
    split = ranked.split(fraction, granularity, block=size)
    run = simulate(network, chosen, split, batch=batch, mismatch_rate=mismatch_rate, seed=seed)
    found = protection = None
    if objective is not None:
        protection = protection_share(
            network, split, run, mismatch_rate=mismatch_rate, seed=seed
        )  # fmt: skip
    with stages(Console(stderr=True)) as stage:
        if bottleneck:
            found = find_bottleneck(
                network, split, run, mismatch_rate=mismatch_rate, seed=seed, begin=stage
            )
        report = RunReport(
            network.name, split, run, found, ranked.origin.objective, protection
        )  # fmt: skip
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
