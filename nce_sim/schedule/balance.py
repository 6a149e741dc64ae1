"""Balancing the two arrays: waves that idle PPEs take over, and columns fused anew by layer."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine_schema import ArrayConfig, FabricConfig
from nce_sim.schedule.waves import WavePlan
from nce_sim.workload.layer import Layer

Mask = NDArray[np.bool_]


def overflow(
    unprotected: Mask,
    plan: WavePlan | None,
    protected_plan: WavePlan | None,
    plan_on_ppes: Callable[[Mask], WavePlan | None],
    batch: int = 1,
) -> Mask | None:
    """Choose the unprotected neurons of a layer that idle PPEs take: whole groups of channels.

    `plan` is theirs on the PEs, `protected_plan` what the PPEs do anyway. Groups are taken from the
    last (the emptiest) on: as many as make the slower array's cycles least. None if none do.
    """
    if plan is None:
        return None
    slower = plan.batch_cycles(batch)
    busy = protected_plan.batch_cycles(batch) if protected_plan is not None else 0
    images = 1 if plan.image_rows else batch
    by_group = images * plan.cycles.sum(axis=(0, 2))
    best = None
    for first in reversed(range(len(by_group))):
        taken = _of_groups(unprotected, plan, first)
        on_ppes = plan_on_ppes(taken)
        if on_ppes is None:  # a group without neurons, on a systolic array
            continue
        on_both = busy + on_ppes.batch_cycles(batch)
        if on_both >= slower:
            break
        reached = max(int(by_group[:first].sum()), on_both)
        if reached < slower:
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
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {fabric.clusters: (0, 0, ())}
    for layer in layers:
        costs = {fused: cycles(layer, fabric.arrays(fused)) for fused in choices}
        best = {
            fused: min(
                (
                    cost + costs[fused] + (fabric.switch_cycles if before != fused else 0),
                    switches + (before != fused),
                    (*path, fused),
                )
                for before, (cost, switches, path) in best.items()
            )
            for fused in choices
        }
    _, _, path = min(best.values())
    return {layer.name: fabric.arrays(fused) for layer, fused in zip(layers, path, strict=True)}
