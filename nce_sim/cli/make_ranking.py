"""The ranking that a command works with: a saved one, or one made with the model's own data."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nce_sim.cli.progress import stages
from nce_sim.errors import InputError

if TYPE_CHECKING:
    from nce_sim.cli.ranking_fault import AskedFault
    from nce_sim.resilience.ranking import Ranking
    from nce_sim.workload.graph import Workload


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
    model: str, network: "Workload", method: str, images: int, precision: str, device: str,
    seed: int, fault: "AskedFault | None" = None,
) -> "Ranking":  # fmt: skip
    """Rank with the first images of the model's own data set."""
    from nce_sim.resilience.ranking import rank
    from nce_sim.workload.datasets import load_data
    from nce_sim.workload.models import load_description

    if method == "random":
        return rank(network, None, None, "random", seed=seed)
    if method == "fault-aware" and fault is None:
        raise InputError(
            "a fault-aware ranking needs its fault: make it with nce-sim rank --method fault-aware "
            "--fault dropout=0.5, and give it as --ranking"
        )
    name = load_description(model)[0].data
    if name is None:
        raise InputError(
            f"model '{model}' names no data set to rank with: use --method random, or rank it "
            f"with your own images in Python"
        )
    part = "ranking" if images <= 5000 else "train"
    data = load_data(name, part).first(images)
    with stages(Console(stderr=True)) as stage:
        advance = stage(f"ranking by {method}", images)
        return rank(
            network, data.images, data.labels, method, seed=seed, precision=precision,
            fault=None if fault is None else fault.on(network, data, device),
            device=device, data=f"{name}/{part}, first {images}",
            progress=lambda done, _: advance(done),
        )  # fmt: skip
