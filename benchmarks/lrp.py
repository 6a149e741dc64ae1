"""Ranking by LRP, in plain forward passes of the same network; zennit and captum beside it.

All take the same images, in channels_last, and find the relevance of every neuron, summed over the
images; the peers with rules that equal nce-sim's (`lrp_peers.py`), so that relevances can be
compared. "LRP" of nce-sim is all that grows with the number of images, "rank" a whole ranking, with
preparing the weights and sorting the neurons.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

import nce_sim as nce
from benchmarks import lrp_peers
from benchmarks.cases import Case, random_vgg16, trained
from benchmarks.options import Options
from benchmarks.table import Row
from benchmarks.timing import Job, alternate, attempt
from nce_sim.resilience.ranking import sum_over_blocks
from nce_sim.resilience.relevance import PRECISIONS, RULES, RelevancePropagation

PACKAGES = ("zennit", "captum")

PASSES = "plain channels_last passes"
OFF = "largest difference, share of the layer's maximum"
COMPARED_IMAGES = 4

Relevance = Callable[[nn.Module, lrp_peers.Batches], list[Tensor]]
PEERS: dict[str, Relevance] = {
    "zennit ZPlus": lrp_peers.zennit,
    "captum alpha1-beta0": lrp_peers.captum,
}


def measure(options: Options) -> list[Row]:
    """Time all ways to rank on both networks of the paper, and compare what they find."""
    rows: list[Row] = []
    for case in (trained(options.images(512)), random_vgg16(options.images(16))):
        rows += timed(case, options.rounds)
        for peer, relevance in PEERS.items():
            rows += compared(case.first(COMPARED_IMAGES), peer, relevance)
        rows += orders(case)
    return rows


def timed(case: Case, rounds: int) -> list[Row]:
    """Time all ways to rank, and a plain forward pass, in turns."""

    def scored(precision: str) -> Job:
        scores = RelevancePropagation(case.network, RULES["lrp"], precision)
        return lambda: sum_over_blocks(
            case.network, scores, case.images, case.labels, "cpu", None
        )  # fmt: skip

    def ranked(method: str) -> Job:
        return lambda: nce.rank(case.network, case.images, case.labels, method)

    def by_peer(relevance: Relevance) -> Job:
        module, batches = case.module(), case.batches()
        return lambda: relevance(module, batches)

    of = f"{case.title}: "
    makers: dict[str, Callable[[], Job]] = {
        of + "plain pass": case.plain,
        of + "plain pass, default layout": lambda: case.plain(channels_last=False),
    }
    for precision in PRECISIONS:
        makers[of + f"nce-sim LRP {precision}"] = lambda p=precision: scored(p)
    makers[of + "nce-sim rank lrp"] = lambda: ranked("lrp")
    makers[of + "nce-sim rank gradient"] = lambda: ranked("gradient")
    for peer, relevance in PEERS.items():
        makers[of + peer] = lambda r=relevance: by_peer(r)
    times = alternate(makers, rounds)
    plain, own = of + "plain pass", of + "nce-sim LRP float32"
    note = f"{len(case.images)} images in batches of {case.batch}"
    rows = [times.absolute(plain, note=note)]
    rows += [times.relative(name, plain, PASSES) for name in makers if name != plain]
    return rows + [times.relative(of + peer, own, "times of nce-sim LRP float32") for peer in PEERS]


def compared(case: Case, peer: str, relevance: Relevance) -> list[Row]:
    """Return the largest difference over all neurons, in float32 and in float64.

    In float32 the winner of a pooling, or a ReLU, may fall the other way where two numbers almost
    agree; float64 shows whether the rules are the same.
    """
    name = f"{case.title}: nce-sim and {peer}"
    note = f"{len(case.images)} images, the worst of all layers"

    def in_float32() -> list[Row]:
        ranking = nce.rank(case.network, case.images, case.labels)
        mine = list(ranking.relevance.values())
        theirs = relevance(case.module(), case.batches())
        return [Row.one(name, f"{OFF}, float32", _largest(mine, theirs, len(case.images)), note)]

    def in_float64() -> list[Row]:
        propagation = RelevancePropagation(case.network, RULES["lrp"], "float64")
        found = propagation(propagation.clean.images(case.images), case.labels)
        mine = [found[layer.name].mean(0).numpy() for layer in case.network.neuron_layers]
        batches = [(images.double(), labels) for images, labels in case.batches()]
        theirs = relevance(case.module().double(), batches)
        return [Row.one(name, f"{OFF}, float64", _largest(mine, theirs, len(case.images)), note)]

    return [
        row
        for figure, found in (("float32", in_float32), ("float64", in_float64))
        for row in attempt(name, f"{OFF}, {figure}", found)
    ]


def _largest(
    mine: Sequence[NDArray[np.floating]], theirs: Sequence[Tensor], images: int
) -> float:  # fmt: skip
    """Return the largest difference of means, each layer's as a share of its maximum."""
    means = [sums.detach().double().numpy() / images for sums in theirs]
    pairs = zip(mine, means, strict=False)  # the peers' end with the last ReLU
    return max(float(np.abs(one - other).max() / np.abs(other).max()) for one, other in pairs)


def orders(case: Case) -> list[Row]:
    """Return how alike the orders of neurons in other precisions are to float32's."""

    def ranked(precision: str) -> nce.Ranking:
        return nce.rank(case.network, case.images, case.labels, precision=precision)

    def correlation(precision: str) -> list[Row]:
        alike = nce.rank_correlation(ranked("float32"), ranked(precision))
        return [Row.one(name(precision), figure, alike, f"{len(case.images)} images")]

    def name(precision: str) -> str:
        return f"{case.title}: nce-sim LRP {precision}"

    figure = "Spearman correlation with float32"
    others = [precision for precision in PRECISIONS if precision != "float32"]
    return [
        row
        for precision in others
        for row in attempt(name(precision), figure, lambda p=precision: correlation(p))
    ]
