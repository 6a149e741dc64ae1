"""`nce-sim explore`: the best design of a space for a stated objective and constraints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nce_sim.cli.options import JsonOption
from nce_sim.cli.progress import stages
from nce_sim.cli.studies import OutOption, finish
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
        Path, typer.Option(help="Folder where points are kept, as those of sweeps are.")
    ] = Path("nce-store"),
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each.")] = 1,
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

    check_writable(out)
    check_writable(store, "--store")
    opened = open_space(draft_space(space))
    if exhaustive:
        check_exhaustible(opened)
    measure = measuring(opened, Store(store), Engine(workers))
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
