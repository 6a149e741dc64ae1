"""Balancing the two arrays: waves that idle PPEs take over, and columns fused anew by layer."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine import ArrayConfig, FabricConfig
from nce_sim.schedule.waves import WavePlan
from nce_sim.workload.layer import Layer

Mask = NDArray[np.bool_]


def overflow(
    unprotected: Mask,
    plan: WavePlan | None,
    protected_plan: WavePlan | None,
    plan_on_ppes: Callable[[Mask], WavePlan | None],
) -> Mask | None:
    """Choose the unprotected neurons of a layer that idle PPEs take: whole groups of channels.

    `plan` is theirs on the PEs, `protected_plan` what the PPEs do anyway. Groups are taken from the
    last (the emptiest) on, as long as the slower array's cycles fall. None if none do.
    """
    if plan is None:
        return None
    slower = plan.total_cycles
    busy = protected_plan.total_cycles if protected_plan is not None else 0
    by_group = plan.cycles.sum(axis=(0, 2))
    best = None
    for groups in range(1, len(by_group) + 1):
        left = int(by_group[: len(by_group) - groups].sum())
        taken = _of_groups(unprotected, plan, len(by_group) - groups)
        on_ppes = plan_on_ppes(taken)
        if on_ppes is None:  # a group without neurons, on a systolic array
            continue
        reached = max(left, busy + on_ppes.total_cycles)
        if reached >= slower:
            break
        best, slower = taken, reached
    return best


def _of_groups(mask: Mask, plan: WavePlan, first: int) -> Mask:
    """Mark the neurons of a plan's groups from `first` on."""
    members = plan.channel_order[first * plan.group_size :]
    chosen = np.zeros(len(mask), bool)
    chosen[members] = True
    return mask & chosen.reshape(-1, *[1] * (mask.ndim - 1))


def fuse_by_layer(
    layers: Sequence[Layer],
    fabric: FabricConfig,
    cycles: Callable[[Layer, Mapping[str, ArrayConfig]], int],
) -> dict[str, dict[str, ArrayConfig]]:
    """Choose how many clusters are fused in each layer: the least compute and switching in all.

    `cycles` gives the compute cycles of the slower array. The choice is exact, by dynamic
    programming over the layers; of equals the one that switches less, then fuses less.
    """
    choices = range(1, fabric.most_clusters + 1)
    best: dict[int, tuple[int, tuple[int, ...]]] = {fabric.clusters: (0, (fabric.clusters,))}
    for layer in layers:
        costs = {fused: cycles(layer, fabric.arrays(fused)) for fused in choices}
        reached = {}
        for fused in choices:
            paths = [
                (cost + (fabric.switch_cycles if before != fused else 0), before != fused, path)
                for before, (cost, path) in best.items()
            ]
            cost, _, path = min(paths)
            reached[fused] = (cost + costs[fused], (*path, fused))
        best = reached
    _, path = min(best.values())
    return {layer.name: fabric.arrays(fused) for layer, fused in zip(layers, path[1:], strict=True)}
