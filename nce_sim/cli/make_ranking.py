"""The ranking that a command works with: a saved one, or one made with the model's own data."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from nce_sim.cli.progress import stages
from nce_sim.errors import InputError

if TYPE_CHECKING:
    from nce_sim.cli.ranking_fault import AskedFault
    from nce_sim.resilience.ranking import Ranking
    from nce_sim.resilience.rules import Additions
    from nce_sim.workload.data_config import DataRecord
    from nce_sim.workload.datasets import Dataset
    from nce_sim.workload.graph import Workload


FAULT_METHODS = ("fault-aware", "fault-in-loop")
"""Methods that need to know the fault."""


def choose_ranking(
    model: str, network: "Workload", ranking: Path | None, method: str | None, images: int | None,
    seed: int, data: str | None = None,
) -> "Ranking":  # fmt: skip
    """Return the saved ranking, or rank anew: by LRP with 500 images if nothing else is asked."""
    from nce_sim.resilience.ranking import Ranking

    if ranking is None:
        return make_ranking(
            model,
            network,
            method or "lrp",
            images,
            "float32",
            "cpu",
            seed,
            data=data,
            otherwise=500,
        )
    if method is not None or images is not None:
        raise InputError("--ranking is a saved ranking: give it without --method and --images")
    return Ranking.load(ranking, network)


def make_ranking(
    model: str, network: "Workload", method: str, images: int | None, precision: str, device: str,
    seed: int, fault: "AskedFault | None" = None, data: str | None = None,
    otherwise: int | None = None, additions: "Additions" = "positive",
    stop_at: float | None = None,
) -> "Ranking":  # fmt: skip
    """Rank with the first images of `data`, or of the model's own.

    If no number of images is asked, it is all of the part for ranking, or up to `otherwise`; with
    `stop_at` as many of them as `rank` needs.
    """
    from nce_sim.faults.ranking_in_loop import IN_LOOP, STEPS, rank_in_loop
    from nce_sim.resilience.ranking import rank

    if method == "random":
        return rank(network, None, None, "random", seed=seed, stop_at=stop_at)
    if method == IN_LOOP and stop_at is not None:
        raise InputError(f"--stop-at does not go with --method {IN_LOOP}, which ranks in steps")
    if method in FAULT_METHODS and fault is None:
        raise InputError(
            f"a {method} ranking needs its fault: make it with nce-sim rank --method {method} "
            f"--fault dropout=0.5, and give it as --ranking"
        )
    given = chosen_data(model, data, "; or use --method random")
    train = ranking_data(given, images, otherwise)
    warn_of_numbering(network, train)
    source = f"{train.name}/{train.part}, first"
    passes = STEPS + 1 if method == IN_LOOP else 1
    with stages(Console(stderr=True)) as stage:
        advance = stage(f"ranking by {method}", passes * len(train))
        if method == IN_LOOP:
            assert fault is not None
            struck_by = fault.on_outputs(network, train, device)
            return rank_in_loop(
                network, train.images, train.labels, struck_by, seed=seed, device=device,
                data=f"{source} {len(train)}", progress=lambda done, _: advance(done),
            )  # fmt: skip
        known = None if fault is None else fault.on(network, train, device)
        made = rank(
            network, train.images, train.labels, method, seed=seed, precision=precision,
            fault=known, device=device, progress=lambda done, _: advance(done), additions=additions,
            stop_at=stop_at,
        )  # fmt: skip
    return replace(made, origin=replace(made.origin, data=f"{source} {made.origin.images}"))


def warn_of_numbering(network: "Workload", data: "Dataset") -> None:
    """Say on standard error what is odd about the labels of data, if anything is."""
    from nce_sim.workload.datasets import numbering_doubt

    doubt = numbering_doubt(data, network.output.outputs)
    if doubt is not None:
        typer.echo(f"nce-sim: {doubt}", err=True)


def load_network(model: str, data: str | None) -> "Workload":
    """Load a network by name; where nothing else says what it reads, it is the images of `data`."""
    from nce_sim.workload.data_config import find_data
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.models import load_model

    if data is None:
        return load_model(model)
    return load_model(model, lambda: load_data(find_data(data), "test").images.shape[1:])


def chosen_data(model: str, given: str | None, otherwise: str = "") -> "DataRecord":
    """Return the data that a user names, or the model's own.

    Raises InputError if there is neither; it then says what to do, or `otherwise`.
    """
    from nce_sim.workload.data_config import find_data
    from nce_sim.workload.models import data_of

    named = given or data_of(model)
    if named is None:
        raise InputError(
            f"model '{model}' names no data set to rank or classify: give --data, or name it with "
            f"data: in a model.yaml{otherwise}"
        )
    return find_data(named)


def ranking_data(data: "DataRecord", images: int | None, otherwise: int | None = None) -> "Dataset":
    """Return the first training images: so many; or if None all for ranking, or up to another."""
    from nce_sim.workload.data_config import ranking_part
    from nce_sim.workload.datasets import load_data

    if images is not None:
        return load_data(data, ranking_part(data, images)).first(images)
    whole = load_data(data, "ranking")
    return whole if otherwise is None else whole.up_to(otherwise)
