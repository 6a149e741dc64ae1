"""`nce-sim safety`: failure rates and the hardware metrics of ISO 26262-5 for one split."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nce_sim import __version__
from nce_sim.cli.make_ranking import choose_ranking, chosen_data, load_network
from nce_sim.cli.options import DataOption, JsonOption, SeedOption
from nce_sim.cli.progress import stages
from nce_sim.cli.studies import MachineOption, MethodOption, ModelArgument, RankingOption
from nce_sim.files import check_writable


def safety(
    model: ModelArgument,
    machine: MachineOption = "nce-28nm",
    fraction: Annotated[float, typer.Option(help="Share of the neurons on PEs, 0 to 1.")] = 0.4,
    granularity: Annotated[str, typer.Option(help="neuron, block, channel or layer.")] = "neuron",
    ranking: RankingOption = None,
    method: MethodOption = None,
    ranking_images: Annotated[
        int | None, typer.Option(min=1, help="Training images to rank with. [default: 500]")
    ] = None,
    data: DataOption = None,
    images: Annotated[int, typer.Option(min=1, help="Test images that meet the upsets.")] = 64,
    flips: Annotated[int, typer.Option(min=1, help="Upsets an inference, at each site.")] = 8,
    stuck: Annotated[int, typer.Option(min=1, help="Stuck bits drawn at each site.")] = 12,
    stuck_images: Annotated[int, typer.Option(min=1, help="Images that meet a stuck bit.")] = 2,
    lifetime_h: Annotated[float, typer.Option(help="Hours of operation, for latent faults.")] = 1e4,
    ftti_ms: Annotated[
        float | None,
        typer.Option(help="Fault-tolerant time interval. [default: none; DUEs are violations]"),
    ] = None,
    safe_state_ms: Annotated[
        float, typer.Option(help="From the engine's report to the system's safe state.")
    ] = 0.0,
    external_memory: Annotated[
        bool, typer.Option("--external-memory", help="Count the external memory, too.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for page, figures and fmeda.csv.")] = Path(
        "nce-safety"
    ),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Weigh what faults do by how often they come: SDC and DUE rates, SPFM, LFM and PMHF.

    Example: nce-sim safety allcnn-fashion --fraction 0.4 --ftti-ms 100 --out safety
    """
    from nce_sim.accuracy.measured_safety import SafetyEffort, assess_safety, calibration_for
    from nce_sim.config.machine import load_machine
    from nce_sim.report.safety_report import safety_report
    from nce_sim.report.study_page import write_study
    from nce_sim.report.wide_table import print_rows
    from nce_sim.resilience.split import check_fraction, check_units
    from nce_sim.safety.assessment import SafetyInputs
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.execute import check_device

    check_fraction(fraction, "--fraction")
    check_units(granularity, None)
    check_device(device)
    check_writable(out)
    inputs = SafetyInputs(lifetime_h, ftti_ms, safe_state_ms, external_memory)
    effort = SafetyEffort(flips, stuck, stuck_images)
    chosen = load_machine(machine)
    given = chosen_data(model, data)
    network = load_network(model, data)
    ranked = choose_ranking(model, network, ranking, method, ranking_images, seed, data)
    test = load_data(given, "test").first(images)
    with stages(Console(stderr=True)) as stage:
        result = assess_safety(
            network, chosen, ranked.split(fraction, granularity), test.images, test.labels,
            inputs=inputs, effort=effort, seed=seed, device=device,
            calibration=calibration_for(chosen, network, load_data(given, "ranking").up_to(500)),
            stage=stage,
        )  # fmt: skip
        origin = ranked.origin
        report = safety_report(
            result, f"Safety figures of {network.name} on {chosen.config.name}",
            [
                ("nce-sim", __version__),
                ("Network", f"{origin.network}, {origin.network_identity}"),
                ("Ranking", f"{origin.method}, {origin.images} images of {origin.data}"),
                ("Split", f"{fraction:.0%} of the neurons on PEs, by {granularity}"),
                ("Machine", f"{chosen.config.name}: {chosen.config.description}"),
                ("Technology", chosen.technology.description),
                (
                    "Upsets",
                    f"{flips} in each of {len(test)} inferences of {test.name}/test, per site",
                ),
                ("Stuck bits", f"{stuck} of {stuck_images} images each, per site"),
                ("External memory", "counted" if external_memory else "listed, not counted"),
                ("Seed", str(seed)),
            ],
        )  # fmt: skip
        write_study(report, out)
    if as_json:
        typer.echo(json.dumps(result.summary(), indent=2, allow_nan=False))
        return
    console = Console()
    for sentence in report.headline:
        console.print(sentence, soft_wrap=True, highlight=False)
    print_rows(console, [{k: str(cell) for k, cell in row.items()} for row in report.rows])
    console.print(f"the page is {out / 'index.html'}", soft_wrap=True)
