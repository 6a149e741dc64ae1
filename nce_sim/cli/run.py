"""`nce-sim run`: the main job."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nce_sim.cli.make_ranking import chosen_data, warn_of_numbering
from nce_sim.cli.options import MODEL_HELP, DataOption
from nce_sim.cli.progress import stages
from nce_sim.files import check_writable, write_atomically

if TYPE_CHECKING:
    from nce_sim.study.job_size import JobSize
    from nce_sim.workload.datasets import Dataset
    from nce_sim.workload.graph import Workload


def run(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = ("allcnn-fashion"),
    machine: Annotated[str, typer.Option(help="Bundled machine or path of a YAML file.")] = (
        "nce-28nm"
    ),
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="Folder for results, figures and the page.")] = Path(
        "nce-run"
    ),
    full: Annotated[
        bool,
        typer.Option("--full", help="All test images, eleven fractions, six fault levels."),
    ] = False,
    ranking_images: Annotated[
        int | None,
        typer.Option(min=1, help="Training images to rank with. [default: up to 1000]"),
    ] = None,
    test_images: Annotated[
        int | None,
        typer.Option(min=1, help="Images to classify. [default: up to 500; large networks: fewer]"),
    ] = None,
    fraction: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of the neurons on PEs; repeat for a grid. [default: 0, 0.2 ... 1; large "
            "networks: 0, 0.4, 1]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all random draws.")] = 0,
    precision: Annotated[
        str,
        typer.Option(
            help="float32, bfloat16, float16, int8, or auto: bfloat16 where hardware has it."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu or cuda, for the network's arithmetic.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Rank, split, simulate, inject faults and report: the main job.

    How much is done by default depends on the size of the network: 500 test images, six fractions
    and four fault levels, or for large ones 100 or more images, three fractions and the hardest
    level of each fault. After an interruption the same command goes on where it stopped.

    Example: nce-sim run --machine nce-28nm --out my-run
    """
    began = time.perf_counter()
    check_writable(out)
    from nce_sim.accuracy.evaluate import default_precision
    from nce_sim.config.machine import load_machine
    from nce_sim.errors import InputError
    from nce_sim.report.page import write_report
    from nce_sim.report.terminal import print_result
    from nce_sim.study.main_job import Plan, run_main_job
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.execute import PRECISIONS, check_device
    from nce_sim.workload.models import load_model

    if precision not in ("auto", *PRECISIONS):
        raise InputError(f"--precision must be auto, {', '.join(PRECISIONS)}, not '{precision}'")
    check_device(device)
    chosen_machine = load_machine(machine)
    named = chosen_data(model, data)
    ranking_data, test_data = load_data(named, "ranking"), load_data(named, "test")
    network = load_model(model, lambda: test_data.images.shape[1:])
    warn_of_numbering(network, test_data)
    size = _size(network, full, ranking_data, test_data, ranking_images, test_images, fraction)
    chosen = default_precision() if precision == "auto" else precision
    plan = Plan(
        fractions=size.fractions,
        dropout_probabilities=size.dropout_probabilities,
        noise_sigmas=size.noise_sigmas,
        ranking_images=size.ranking_images or len(ranking_data),
        test_images=size.test_images or len(test_data),
        realisations=1,
        seed=seed,
        ranking_precision="mixed" if chosen == "bfloat16" else "float32",
        precision=chosen,
        device=device,
    )
    messages = Console(stderr=True)
    with stages(messages) as stage:
        result = run_main_job(
            network, chosen_machine, ranking_data, test_data, plan, stage, out / ".resume"
        )
        advance = stage("writing the page", 1)
        write_report(result, out)
        advance(1)
    seconds = time.perf_counter() - began
    timings = {"seconds": round(seconds, 2), "faulty_inferences": plan.inferences}
    write_atomically(out / "timings.json", (json.dumps(timings, indent=2) + "\n").encode())
    if as_json:
        typer.echo((out / "results.json").read_text(), nl=False)
        return
    print_result(result, Console())
    typer.echo(f"{out / 'index.html'} is the page ({seconds:.0f} s)")


def _size(
    network: "Workload", full: bool, ranking_data: "Dataset", test_data: "Dataset",
    ranking_images: int | None, test_images: int | None, fractions: list[float] | None,
) -> "JobSize":  # fmt: skip
    """Return how much to do: what is asked for, and for the rest what suits the network."""
    from nce_sim.errors import InputError
    from nce_sim.study.job_size import BRIEF, FULL, job_size
    from nce_sim.study.main_job import METHODS

    size = FULL if full else job_size(network, len(METHODS))
    wrong = [value for value in fractions or () if not 0 <= value <= 1]
    if wrong:
        raise InputError(f"--fraction must be from 0 to 1, not {wrong[0]}")
    ranked = ranking_data.up_to(size.ranking_images or len(ranking_data))
    tested = test_data.up_to(size.test_images or len(test_data))
    size = replace(
        size,
        fractions=tuple(sorted(set(fractions))) if fractions else size.fractions,
        ranking_images=len(ranking_data.first(ranking_images) if ranking_images else ranked),
        test_images=len(test_data.first(test_images) if test_images else tested),
    )
    if size.dropout_probabilities == BRIEF.dropout_probabilities:
        typer.echo(
            f"nce-sim: {network.name} takes {network.macs / 1e9:.2g} billion MACs an image: "
            f"{size.test_images:,} test and {size.ranking_images:,} ranking images, "
            f"{len(size.fractions)} fractions and the hardest level of each fault; --full does "
            f"all, and --test-images, --ranking-images and --fraction set how much",
            err=True,
        )
    return size
