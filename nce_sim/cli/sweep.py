"""`nce-sim sweep`: a study of many points."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nce_sim.cli.options import JsonOption
from nce_sim.cli.progress import stages
from nce_sim.errors import InputError
from nce_sim.files import check_writable, write_atomically

if TYPE_CHECKING:
    from nce_sim.study.estimate import Estimate
    from nce_sim.study.sweep import Plan


def sweep(
    study: Annotated[str, typer.Argument(help="Bundled study or path of a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder for the page, points.csv, summary.json.")] = (
        Path("nce-sweep")
    ),
    store: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps finished points; studies may share one. [default: OUT/store]"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. [default: one a core]")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler that computes in their place.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and plan only: nothing is written.")
    ] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write points.parquet, too.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all random draws, in place of the study's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every point of a study: accuracy under faults, latency, energy and area.

    Each finished point is kept at once. After an interruption the same command goes on where it
    stopped; its results do not depend on the number of workers.

    Example: nce-sim sweep digits --dry-run
    """
    from nce_sim.config.study import draft_study
    from nce_sim.study.estimate import estimate
    from nce_sim.study.parallel import Engine
    from nce_sim.study.resources import Resources
    from nce_sim.study.store import Store
    from nce_sim.study.sweep import plan_sweep, run_sweep

    if dask is not None and workers is not None:
        raise InputError("--workers goes without --dask: a cluster has its own workers")
    chosen = workers or len(os.sched_getaffinity(0))
    keep = Store(store or out / "store")
    resources = Resources()
    plan = plan_sweep(draft_study(study), resources, seed)
    if dry_run:
        missing = plan.missing(keep)
        found = estimate(missing, resources, chosen)
        _print_plan(plan, found, chosen, dask, as_json)
        return
    check_writable(out)
    check_writable(keep.folder, "--store")
    if parquet:
        _check_parquet()
    with stages(Console(stderr=True)) as stage:
        result = run_sweep(plan, keep, Engine(chosen, dask), stage)
        advance = stage("writing the page", 1)
        from nce_sim.report.study_page import write_study
        from nce_sim.report.sweep_rows import parquet_bytes, summary, sweep_report

        report = sweep_report(result)
        write_study(report, out)
        document = json.dumps(summary(result), indent=2) + "\n"
        write_atomically(out / "summary.json", document.encode())
        if parquet:
            write_atomically(out / "points.parquet", parquet_bytes(result))
        advance(1)
    if as_json:
        typer.echo(json.dumps(result.rows, indent=2))
        return
    console = Console()
    for sentence in report.headline:
        console.print(sentence, soft_wrap=True, highlight=False)
    console.print(f"the page is {out / 'index.html'}", soft_wrap=True)


def _check_parquet() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as reason:
        raise InputError("--parquet needs pyarrow: pip install 'nce-sim[parquet]'") from reason


def _print_plan(
    plan: "Plan", found: "Estimate", workers: int, dask: str | None, as_json: bool
) -> None:
    """Say what a study would do."""
    numbers = {
        "points": plan.asked,
        "distinct": len(plan.points),
        "in_store": len(plan.points) - found.points,
        "to_compute": found.points,
        "inferences_at_most": found.inferences,
        "workers": workers,
        "estimated_seconds": round(found.seconds, 1),
        "estimated_memory_gib": round(found.memory_bytes / 2**30, 2),
    }
    if as_json:
        typer.echo(json.dumps(numbers, indent=2))
        return
    typer.echo(
        f"{plan.study.name}: {plan.asked:,} points, {len(plan.points):,} of them distinct; "
        f"{numbers['in_store']:,} are in the store, {found.points:,} are to be computed."
    )
    if found.inferences:
        typer.echo(f"At most {found.inferences:,} inferences under faults.")
    who = f"{workers} workers" if dask is None else f"{workers} workers (the cluster may have more)"
    typer.echo(
        f"An estimate, from a few images and runs of each kind: {_duration(found.seconds)} and "
        f"{found.memory_bytes / 2**30:.1f} GiB with {who}."
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
