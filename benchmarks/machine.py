"""Simulation of the machine: All-CNN-C beside SCALE-Sim, and one split of VGG-16.

Both simulators run All-CNN-C (3 x 32 x 32) with all neurons on one output-stationary 32 x 32 array,
each in a process of its own whose start counts; cycles are compared layer by layer. SCALE-Sim does
not run VGG-16: its time and memory are those of All-CNN-C times the ratio of the cycles, of the
network and of its longest layer.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch

import nce_sim as nce
from benchmarks.child import in_child, peak_mib, reset_peak
from benchmarks.options import Options
from benchmarks.scale_sim import PeerRun, run_scale_sim
from benchmarks.table import Row
from benchmarks.timing import attempt, say
from nce_sim.resilience.split import Split
from nce_sim.workload.capture import capture
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import Kind
from nce_sim.workload.zoo.allcnn import all_cnn_c

PACKAGES = ("scalesim",)

PEER_ROUNDS = 3
"""At most: SCALE-Sim takes half a minute a round."""

FRACTION = 0.4
DENSE, SPLIT = "All-CNN-C dense on os-32x32", "VGG-16, one split on nce-28nm"
LARGE = "VGG-16 dense on os-32x32"


def measure(options: Options) -> list[Row]:
    """Measure both simulators on All-CNN-C, then nce-sim alone on VGG-16."""
    rows = attempt(f"{SPLIT}: nce-sim", "s", lambda: one_split(options.rounds))
    return rows + against_scale_sim(options)


def one_split(rounds: int) -> list[Row]:
    """Time one split of VGG-16 on one core, from the mask to the energy, the windows chosen."""
    found = in_child(split_vgg16, cores=1, rounds=rounds)
    name = f"{SPLIT}: nce-sim"
    note = f"one core, {FRACTION:.0%} unprotected, mask to energy"
    return [
        Row.of(name, "s", found["seconds"], min(found["seconds"]), note),
        Row.one(name, "MiB above the loaded ranking, at most", found["above_mib"]),
    ]


def split_vgg16(rounds: int) -> dict[str, object]:
    """Return the seconds of each round, and the memory above what a ranking needs."""
    network, machine = nce.load_model("vgg16"), nce.load_machine("nce-28nm")
    ranking = nce.rank(network, None, None, method="random")
    _ = ranking.places
    before = reset_peak()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        nce.simulate(network, machine, ranking.split(FRACTION))
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "above_mib": peak_mib() - before}


def against_scale_sim(options: Options) -> list[Row]:
    """Run both simulators in turns on All-CNN-C; compare times, memory and cycles."""
    network = allcnn()
    layers = [layer for layer in network.layers if layer.kind is Kind.CONV2D]
    ours, seconds, peers = [], [], []
    reason: list[Row] = []
    for number in range(min(options.rounds, PEER_ROUNDS)):
        say(f"All-CNN-C, round {number + 1}")
        start = time.perf_counter()
        ours.append(in_child(dense_allcnn))
        seconds.append(time.perf_counter() - start)
        if not reason:
            reason = attempt(
                f"{DENSE}: SCALE-Sim", "s, whole process",
                lambda: peers.append(run_scale_sim(layers, options.scale_sim)) or [],
            )  # fmt: skip
    rows = [
        Row.of(f"{DENSE}: nce-sim", "s, whole process", seconds, min(seconds)),
        _row(f"{DENSE}: nce-sim", "s, simulation alone", [run["seconds"] for run in ours]),
        _row(f"{DENSE}: nce-sim", "MiB, whole process", [run["peak_mib"] for run in ours]),
    ]
    if reason:
        return rows + reason
    mine = [ours[0]["cycles"][layer.name] for layer in layers]
    return rows + _beside(peers, seconds) + _cycles(mine, peers[0]) + [_vgg16(mine, peers)]


def _row(what: str, figure: str, values: Sequence[float]) -> Row:
    return Row.of(what, figure, values, min(values))


def _beside(peers: Sequence[PeerRun], seconds: Sequence[float]) -> list[Row]:
    name = f"{DENSE}: SCALE-Sim"
    ratios = [peer.seconds / own for peer, own in zip(peers, seconds, strict=True)]
    return [
        _row(name, "s, whole process", [peer.seconds for peer in peers]),
        _row(name, "MiB, whole process", [peer.peak_mib for peer in peers]),
        Row.of(name, "nce-sim processes", ratios),
    ]


def _cycles(mine: Sequence[int], peer: PeerRun) -> list[Row]:
    """Return both counts of all layers, and in how many layers they agree.

    nce-sim counts the cycle in which a layer starts, SCALE-Sim does not.
    """
    less_start = [cycles - 1 for cycles in mine]
    equal = sum(one == other for one, other in zip(less_start, peer.cycles, strict=True))
    note = f"SCALE-Sim {', '.join(map(str, peer.cycles))}; nce-sim one more each"
    if equal < len(mine):
        note = f"SCALE-Sim {peer.cycles}; nce-sim {list(mine)}"
    return [
        Row.one(f"{DENSE}: compute cycles", f"layers of {len(mine)} that are equal", equal, note),
        Row.one(f"{DENSE}: compute cycles", "sum of SCALE-Sim's", sum(peer.cycles)),
    ]


def _vgg16(mine: Sequence[int], peers: Sequence[PeerRun]) -> Row:
    """Return why SCALE-Sim does not run VGG-16: what that would need at least."""
    large = dense_cycles(nce.load_model("vgg16"))
    hours = min(peer.seconds for peer in peers) * sum(large.values()) / sum(mine) / 3600
    gib = max(peer.peak_mib for peer in peers) * max(large.values()) / max(mine) / 1024
    return Row(
        f"{LARGE}: SCALE-Sim", "s, whole process",
        note=f"not run: by the ratio of cycles it would take {hours:.1f} hours and, for the "
        f"longest layer, {gib:.0f} GiB",
    )  # fmt: skip


def allcnn() -> Workload:
    """Return All-CNN-C as published, with three input channels."""
    return capture(all_cnn_c().eval(), torch.zeros(1, 3, 32, 32), "all-cnn-c")


def dense_allcnn() -> dict[str, object]:
    """Return cycles by layer, the seconds of the simulation, and the memory of this process."""
    network = allcnn()
    start = time.perf_counter()
    cycles = dense_cycles(network)
    seconds = time.perf_counter() - start
    return {"cycles": cycles, "seconds": seconds, "peak_mib": peak_mib()}


def dense_cycles(network: Workload) -> dict[str, int]:
    """Return compute cycles by layer with all neurons on one array."""
    masks = {layer.name: np.ones(layer.out_shape, bool) for layer in network.neuron_layers}
    run = nce.simulate(network, nce.load_machine("os-32x32"), Split(1.0, "neuron", masks))
    return {layer: found["unprotected"] for layer, found in run.compute_cycles_by_layer.items()}
