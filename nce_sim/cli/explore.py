"""`nce-sim explore`: the best design of a space for a stated objective and constraints."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nce_sim.cli.options import JsonOption
from nce_sim.cli.progress import stages
from nce_sim.cli.studies import OutOption, finish
from nce_sim.errors import InputError
from nce_sim.files import check_writable

if TYPE_CHECKING:
    from nce_sim.cli.progress import Stage
    from nce_sim.study.measure_trials import Measure
    from nce_sim.study.search import SearchResult
    from nce_sim.study.search_quality import Closeness
    from nce_sim.study.space import Space


def explore(
    space: Annotated[str, typer.Argument(help="Bundled space or path of a YAML file.")],
    trials: Annotated[int, typer.Option(min=1, help="Points to try.")] = 100,
    out: OutOption = Path("nce-explore"),
    store: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps points; sweeps may share it. [default: OUT/store]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. [default: one a core]")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler that computes in their place.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the search; the space has its own.")] = 0,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Try every point too: how close does it come?")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Search split, PPE ratio, granularity, scheme, voltage, buffers: the least of an objective.

    The same command goes on where it was stopped. Example: nce-sim explore digits-least-energy
    """
    from nce_sim.config.space import draft_space
    from nce_sim.report.explore_report import explore_report, summary
    from nce_sim.study.measure_trials import measuring
    from nce_sim.study.parallel import Engine
    from nce_sim.study.search import check_exhaustible
    from nce_sim.study.space import open_space
    from nce_sim.study.store import Store

    if dask is not None and workers is not None:
        raise InputError("--workers goes without --dask: a cluster has its own workers")
    check_writable(out)
    keep = Store(store or out / "store")
    check_writable(keep.folder, "--store")
    opened = open_space(draft_space(space))
    if exhaustive:
        check_exhaustible(opened)
    measure = measuring(opened, keep, Engine(workers or len(os.sched_getaffinity(0)), dask))
    with stages(Console(stderr=True)) as stage:
        result = _search(opened, measure, trials, seed, stage)
        whole, close = (
            _whole(opened, measure, trials, seed, stage) if exhaustive else (None, [])
        )  # fmt: skip
    report = explore_report(result, whole, close, seed)
    finish(report, summary(result, whole, close), out, as_json)


def _search(
    space: "Space", measure: "Measure", trials: int, seed: int, stage: "Stage"
) -> "SearchResult":  # fmt: skip
    from nce_sim.study.search import search

    advance = stage("trying points", min(trials, space.size))
    return search(space, measure, trials, seed, progress=lambda done: advance(len(done)))


def _whole(
    space: "Space", measure: "Measure", trials: int, seed: int, stage: "Stage"
) -> "tuple[SearchResult, list[Closeness]]":
    """Try every point, then search them again with other seeds."""
    from nce_sim.study.search import exhaust
    from nce_sim.study.search_quality import SEEDS, closeness

    advance = stage("trying every point", space.size)
    whole = exhaust(space, measure, lambda done: advance(len(done)))
    if whole.best is None:
        return whole, []
    return whole, closeness(whole, trials, range(seed, seed + SEEDS))
