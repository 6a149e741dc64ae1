"""The ranking that a command works with: a saved one, or one made with the model's own data."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nce_sim.cli.progress import stages
from nce_sim.errors import InputError

if TYPE_CHECKING:
    from nce_sim.cli.ranking_fault import AskedFault
    from nce_sim.resilience.ranking import Ranking
    from nce_sim.workload.datasets import Dataset
    from nce_sim.workload.graph import Workload


FAULT_METHODS = ("fault-aware", "fault-in-loop")
"""Methods that need to know the fault."""


def choose_ranking(
    model: str, network: "Workload", ranking: Path | None, method: str | None, images: int | None,
    seed: int,
) -> "Ranking":  # fmt: skip
    """Return the saved ranking, or rank anew: by LRP with 500 images if nothing else is asked."""
    from nce_sim.resilience.ranking import Ranking

    if ranking is None:
        return make_ranking(model, network, method or "lrp", images or 500, "float32", "cpu", seed)
    if method is not None or images is not None:
        raise InputError("--ranking is a saved ranking: give it without --method and --images")
    return Ranking.load(ranking, network)


def make_ranking(
    model: str, network: "Workload", method: str, images: int | None, precision: str, device: str,
    seed: int, fault: "AskedFault | None" = None,
) -> "Ranking":  # fmt: skip
    """Rank with the first images of the model's own data set: all for ranking if none are asked."""
    from nce_sim.faults.ranking_in_loop import IN_LOOP, STEPS, rank_in_loop
    from nce_sim.resilience.ranking import rank

    if method == "random":
        return rank(network, None, None, "random", seed=seed)
    if method in FAULT_METHODS and fault is None:
        raise InputError(
            f"a {method} ranking needs its fault: make it with nce-sim rank --method {method} "
            f"--fault dropout=0.5, and give it as --ranking"
        )
    data = ranking_data(model, images)
    described = f"{data.name}/{data.part}, first {len(data)}"
    passes = STEPS + 1 if method == IN_LOOP else 1
    with stages(Console(stderr=True)) as stage:
        advance = stage(f"ranking by {method}", passes * len(data))
        if method == IN_LOOP:
            assert fault is not None
            struck_by = fault.on_outputs(network, data, device)
            return rank_in_loop(
                network, data.images, data.labels, struck_by, seed=seed, device=device,
                data=described, progress=lambda done, _: advance(done),
            )  # fmt: skip
        known = None if fault is None else fault.on(network, data, device)
        return rank(
            network, data.images, data.labels, method, seed=seed, precision=precision, fault=known,
            device=device, data=described, progress=lambda done, _: advance(done),
        )  # fmt: skip


def ranking_data(model: str, images: int | None) -> "Dataset":
    """Return the first training images of the model's own data set; all for ranking if None."""
    from nce_sim.workload.dataset_descriptions import ranking_part
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.models import load_description

    name = load_description(model)[0].data
    if name is None:
        raise InputError(
            f"model '{model}' names no data set to rank with: use --method random, or rank it "
            f"with your own images in Python"
        )
    part = "ranking" if images is None else ranking_part(name, images)
    whole = load_data(name, part)
    return whole.first(len(whole) if images is None else images)
