"""`nce-sim run`: the main job."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nce_sim.cli.make_ranking import chosen_data
from nce_sim.cli.options import MODEL_HELP, DataOption
from nce_sim.cli.progress import stages
from nce_sim.files import check_writable, write_atomically

TENTHS = tuple(tenth / 10 for tenth in range(11))


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

    After an interruption the same command goes on where it stopped.

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
    chosen = default_precision() if precision == "auto" else precision
    plan = Plan(
        fractions=TENTHS if full else TENTHS[::2],
        dropout_probabilities=(0.1, 0.3, 0.5) if full else (0.1, 0.5),
        noise_sigmas=(1.0, 2.0, 3.0) if full else (1.0, 3.0),
        ranking_images=len(ranking_data if full else ranking_data.up_to(1000)),
        test_images=len(test_data if full else test_data.up_to(500)),
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
