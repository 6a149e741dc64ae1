"""`nce-sim designs`: what competing designs cost at equal risk, and whether the table matters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from nce_sim.cli.make_ranking import choose_ranking, chosen_data, load_network
from nce_sim.cli.options import DataOption, JsonOption, SeedOption
from nce_sim.cli.progress import stages
from nce_sim.cli.studies import (
    MachineOption,
    MethodOption,
    ModelArgument,
    OutOption,
    RankingOption,
    count_steps,
    finish,
    making,
)
from nce_sim.errors import InputError
from nce_sim.files import check_writable

if TYPE_CHECKING:
    from nce_sim.config.machine import Machine
    from nce_sim.config.technology import End, Technology
    from nce_sim.study.designs import Equal
    from nce_sim.study.equal_risk import CostName

CALIBRATION_IMAGES = 200
FRACTIONS = (0.2, 0.6)


def compare_designs(
    model: ModelArgument,
    machine: MachineOption = "nce-28nm",
    equal: Annotated[
        str, typer.Option(help="What all designs have in common: lanes or area.")
    ] = "lanes",
    fraction: Annotated[
        list[float] | None,
        typer.Option(help="Share of the neurons on PEs; repeat for a grid. [default: 0.2, 0.6]"),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Silent errors in 1e9 hours. [default: half of what ECC alone reaches]"),
    ] = None,
    minimise: Annotated[
        str, typer.Option(help="What is least at the target: energy, area or latency.")
    ] = "energy",
    images_per_second: Annotated[float, typer.Option(help="The demand on every design.")] = 100.0,
    rates: Annotated[
        str, typer.Option(help="Rates of faults: value, or the low or high end of their range.")
    ] = "value",
    technology: Annotated[
        list[str] | None,
        typer.Option(help="Table to compare with; repeat. [default: all bundled ones]"),
    ] = None,
    dropout: Annotated[float, typer.Option(help="p of the faults on PEs, for the tables.")] = 0.5,
    loss: Annotated[float, typer.Option(help="Points of accuracy that these may cost.")] = 1.0,
    images: Annotated[int, typer.Option(min=1, help="Test images that faults strike.")] = 64,
    faults: Annotated[
        float, typer.Option(help="Faults of an inference that hit words of memories, about.")
    ] = 2.0,
    realisations: Annotated[
        int, typer.Option(min=1, help="Inferences of each image, where the target is near.")
    ] = 3,
    accuracy_images: Annotated[int, typer.Option(min=1, help="Test images under dropout.")] = 256,
    ranking: RankingOption = None,
    method: MethodOption = None,
    ranking_images: Annotated[
        int | None, typer.Option(min=1, help="Training images to rank with. [default: 500]")
    ] = None,
    data: DataOption = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: OutOption = Path("nce-designs"),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare designs where their rates of silent errors are equal: does the split pay?

    Example: nce-sim designs allcnn-fashion --equal area --fraction 0.2 --fraction 0.5
    """
    check_writable(out)
    from nce_sim.accuracy.risk import RiskMeter
    from nce_sim.config.machine import load_machine
    from nce_sim.config.technology import ENDS
    from nce_sim.faults.models import Dropout
    from nce_sim.report.designs_report import designs_report, summary
    from nce_sim.resilience.split import check_fraction
    from nce_sim.study.designs import EQUALS, check_base
    from nce_sim.study.equal_risk import COSTS, Demand, grid_of, study_equal_risk
    from nce_sim.study.technology_choice import (
        answers_count,
        measure_losses,
        study_technology,
        tables_of,
    )
    from nce_sim.workload.calibration import calibrate
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.execute import check_device

    fractions = tuple(sorted(set(fraction or FRACTIONS)))
    for each in fractions:
        check_fraction(each, "--fraction")
    if 0 in fractions or 1 in fractions:
        raise InputError(
            "--fraction must be above 0 and below 1: the ends are designs without a split"
        )
    _check_known("--equal", equal, EQUALS)
    _check_known("--minimise", minimise, COSTS)
    _check_known("--rates", rates, ENDS)
    _check_positive("--target", target)
    _check_positive("--faults", faults)
    if not 0 <= loss <= 100:
        raise InputError(f"--loss must be 0 to 100 points, not {loss}")
    check_device(device)
    demand = Demand(images_per_second, cast("End", rates))
    failing = Dropout(dropout)
    base = load_machine(machine)
    check_base(base)
    own, technologies = _technologies(base, technology)
    given = chosen_data(model, data)
    network = load_network(model, data)
    train = load_data(given, "ranking").up_to(CALIBRATION_IMAGES)
    test = load_data(given, "test")
    ranked = choose_ranking(model, network, ranking, method, ranking_images, seed, data)
    struck, judged = test.first(images), test.first(accuracy_images)
    with stages(Console(stderr=True)) as stage:
        meter = RiskMeter(
            network, struck.images, base.config.number_format,
            calibration=calibrate(network, train.images), device=device, active=faults,
            realisations=realisations, seed=seed,
        )  # fmt: skip
        places = grid_of(ranked, fractions)
        risk = study_equal_risk(
            network, base, places, meter, equal=cast("Equal", equal), demand=demand,
            target_fit=target, minimise=cast("CostName", minimise),
            advance=count_steps(stage, len(places), "striking designs"),
        )  # fmt: skip
        losses = measure_losses(
            network,
            judged.images,
            judged.labels,
            ranked,
            fractions,
            failing,
            seed=seed,
            device=device,
        )
        choice = study_technology(
            network, base, ranked, losses, tables_of(technologies, own), failing,
            most_lost=loss / 100,
            advance=count_steps(stage, answers_count(losses, loss / 100), "pricing engines"),
        )  # fmt: skip
    made = [
        *making(ranked, base, seed),
        ("Images", f"{len(struck)} struck, {len(judged)} under dropout, of {test.name}/test"),
    ]
    finish(designs_report(risk, choice, made), summary(risk, choice), out, as_json)


def _check_known(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise InputError(f"{option} is one of {', '.join(known)}, not '{given}'")


def _check_positive(option: str, given: float | None) -> None:
    if given is not None and not 0 < given < float("inf"):
        raise InputError(f"{option} must be a number above 0, not {given}")


def _technologies(
    base: "Machine", names: list[str] | None
) -> tuple[str, "dict[str, Technology]"]:  # fmt: skip
    """Return the name of the machine's own table, and all tables to compare, that one first."""
    from nce_sim.config.bundle import bundled
    from nce_sim.config.technology import load_technology
    from nce_sim.study.technology_choice import check_table

    folder = bundled("hw_configs") / "technology"
    own = base.technology.name
    found = {own: base.technology}
    for name in names or sorted(path.stem for path in folder.glob("*.yaml")):
        table = load_technology(name, folder, Path())
        if names:
            check_table(base, name, table)
        elif not _suits(base, name, table):
            continue
        found.setdefault(table.name, table)
    return own, found


def _suits(base: "Machine", name: str, table: "Technology") -> bool:
    """Tell whether a table that nobody asked for has what the machine needs."""
    from nce_sim.study.technology_choice import check_table

    try:
        check_table(base, name, table)
    except InputError:
        return False
    return True
