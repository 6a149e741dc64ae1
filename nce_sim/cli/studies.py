"""`nce-sim balance` and `nce-sim granularity`: studies of the hardware for one ranking."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nce_sim import __version__
from nce_sim.cli.make_ranking import choose_ranking, load_network
from nce_sim.cli.options import MODEL_HELP, DataOption, JsonOption, SeedOption
from nce_sim.cli.progress import stages
from nce_sim.files import check_writable

if TYPE_CHECKING:
    from nce_sim.cli.progress import Advance, Stage
    from nce_sim.config.machine import Machine
    from nce_sim.report.study_page import StudyReport
    from nce_sim.resilience.ranking import Ranking

ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP)]
MachineOption = Annotated[str, typer.Option(help="Bundled machine or path of a YAML file.")]
RankingOption = Annotated[Path | None, typer.Option(help="A saved ranking.")]
MethodOption = Annotated[str | None, typer.Option(help="Rank anew by this method. [default: lrp]")]
ImagesOption = Annotated[
    int | None, typer.Option(min=1, help="Training images to rank with. [default: 500]")
]
OutOption = Annotated[Path, typer.Option(help="Folder for the page, figures and points.csv.")]


def balance(
    model: ModelArgument,
    machine: MachineOption = "nce-28nm",
    family: Annotated[
        str, typer.Option(help="What stays: lanes, area, or fabric (columns that fuse).")
    ] = "lanes",
    fraction: Annotated[float, typer.Option(help="Share of the neurons on PEs, 0 to 1.")] = 0.4,
    granularity: Annotated[str, typer.Option(help="neuron, block, channel or layer.")] = "neuron",
    ranking: RankingOption = None,
    method: MethodOption = None,
    images: ImagesOption = None,
    data: DataOption = None,
    out: OutOption = Path("nce-balance"),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Find the share of PPE lanes that balances the arrays, and what a ratio by layer would gain.

    Example: nce-sim balance allcnn-fashion --machine nce-fused --family fabric --fraction 0.6
    """
    from nce_sim.config.machine import load_machine
    from nce_sim.report.hardware_studies import ratio_report
    from nce_sim.resilience.split import check_fraction, check_units
    from nce_sim.study.ppe_ratio import family_of, study_ratio

    check_fraction(fraction, "--fraction")
    check_units(granularity, None)
    check_writable(out)
    base = load_machine(machine)
    steps = len(family_of(base, family)) + (base.config.fabric is not None)
    network = load_network(model, data)
    ranked = choose_ranking(model, network, ranking, method, images, seed, data)
    split = ranked.split(fraction, granularity)
    with stages(Console(stderr=True)) as stage:
        study = study_ratio(network, network.name, base, split, family, count_steps(stage, steps))
    report = ratio_report(study, making(ranked, base, seed))
    summary = {
        "best": asdict(study.best),
        "gain_by_layer": study.gain_by_layer,
        "points": [asdict(point) for point in study.points],
    }
    finish(report, summary, out, as_json)


def granularity_study(
    model: ModelArgument,
    machine: MachineOption = "nce-28nm",
    ranking: RankingOption = None,
    method: MethodOption = None,
    images: ImagesOption = None,
    data: DataOption = None,
    out: OutOption = Path("nce-granularity"),
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare splits by neuron, aligned neurons, block, channel and layer on a machine.

    Example: nce-sim granularity vgg16 --method random
    """
    from nce_sim.config.machine import load_machine
    from nce_sim.report.hardware_studies import granularity_report
    from nce_sim.study.granularity import FRACTIONS, UNITS, study_granularity

    check_writable(out)
    chosen = load_machine(machine)
    network = load_network(model, data)
    ranked = choose_ranking(model, network, ranking, method, images, seed, data)
    with stages(Console(stderr=True)) as stage:
        advance = count_steps(stage, 2 + len(UNITS) * len(FRACTIONS))
        study = study_granularity(network, network.name, ranked, chosen, advance=advance)
    report = granularity_report(study, making(ranked, chosen, seed))
    finish(report, asdict(study), out, as_json)


def count_steps(stage: "Stage", steps: int, name: str = "simulating") -> "Advance":
    """Begin a stage, and return a function that adds up the steps it is told."""
    advance = stage(name, steps)
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        advance(done)

    return add


def making(ranking: "Ranking", machine: "Machine", seed: int) -> list[tuple[str, str]]:
    """Return names and values of what a study was made with."""
    origin = ranking.origin
    return [
        ("nce-sim", __version__),
        ("Network", f"{origin.network}, {origin.network_identity}"),
        (
            "Ranking",
            f"{origin.method}, {origin.images} images of {origin.data}, seed {origin.seed}",
        ),
        ("Machine", f"{machine.config.name}: {machine.config.description}"),
        ("Technology", machine.technology.description),
        ("Seed", str(seed)),
    ]


def finish(report: "StudyReport", summary: dict[str, object], out: Path, as_json: bool) -> None:
    """Write the page, and print the answer with the table, or JSON."""
    from nce_sim.report.study_page import cell_text, write_study
    from nce_sim.report.wide_table import print_rows

    write_study(report, out)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    console = Console()
    for sentence in report.headline:
        console.print(sentence, soft_wrap=True, highlight=False)
    rows = [
        {name.replace("_", " "): cell_text(value) for name, value in row.items()}
        for row in report.rows
    ]
    print_rows(console, rows)
    console.print(f"the page is {out / 'index.html'}", soft_wrap=True)
