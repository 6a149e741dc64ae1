"""Schedules that serve another machine: what a program depends on, and what it does not.

Neurons become waves, tiles and transfers by the sizes of arrays, buffers, bursts and rows. How fast
a bus or memory is, at what voltage, and what all of it costs only matter when the program runs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nce_sim.config.machine_schema import MachineConfig
from nce_sim.schedule.domains import UNPROTECTED
from nce_sim.schedule.program import LayerWork, Mask, Program
from nce_sim.workload.layer import Kind, Layer
from nce_sim.workload.steps import machine_steps

SHAPES = (Kind.FLATTEN, Kind.CONCAT)
"""Layers that give maps another shape, and of which a program has no work."""

IN_SCHEDULES = {"burst_bytes", "row_bytes", "protected_scheme"}
"""All of the memory that a schedule depends on."""

NOT_IN_SCHEDULES: dict[str, Any] = {
    **dict.fromkeys(
        ("name", "description", "technology", "voltage", "temperature_k", "clock_mhz", "bus",
         "controller", "memory"), True,
    ),
    **{
        domain: {
            "supply_v": True,
            "buffers": {"port_bytes_per_cycle", "scheme", "word_bits", "cell_type"},
        }
        for domain in ("protected", "unprotected")
    },
    "fabric": {"switch_pj"},
}  # fmt: skip
"""The rest of a machine that schedules do not depend on, as pydantic's `exclude`."""


def program_for(
    machine: MachineConfig, like: Program, layers: tuple[Layer, ...],
    unprotected: Mapping[str, Mask], map_bits: Mapping[str, int], batch: int,
) -> Program | None:  # fmt: skip
    """Return `like` for another machine, if `build_program` would make the same of these arguments.

    None if it would not: the machines, or what they are to compute, are scheduled in another way.
    """
    alike = (
        like.batch == batch
        and schedule_key(like.machine) == schedule_key(machine)
        and _same_work(like, layers, unprotected, map_bits)
    )
    return replace(like, machine=machine) if alike else None


def _same_work(
    program: Program, layers: tuple[Layer, ...], unprotected: Mapping[str, Mask],
    map_bits: Mapping[str, int],
) -> bool:  # fmt: skip
    """Tell whether a program computes these layers with this split, and no neuron of it twice."""
    works = {work.layer.name: work for work in program.layers}
    steps = [layer for layer in machine_steps(layers) if layer.kind not in SHAPES]
    return [work.layer for work in program.layers] == steps and all(
        name in works
        and works[name].map_bytes == -(-map_bits[name] // 8)
        and all(share.mismatches is None for share in works[name].shares)
        and sum(share.elements for share in works[name].shares) == mask.size
        and np.array_equal(_unprotected(works[name]), mask)
        for name, mask in unprotected.items()
    )


def _unprotected(work: LayerWork) -> Mask:
    """Return the neurons of a layer that belong to the unprotected domain."""
    masks = [share.mask for share in work.shares if share.domain == UNPROTECTED]
    return np.asarray(np.logical_or.reduce(masks))


def schedule_key(machine: MachineConfig) -> str:
    """Return all that schedules depend on: machines with the same key schedule a split alike."""
    return machine.model_dump_json(exclude=NOT_IN_SCHEDULES) + machine.memory.model_dump_json(
        include=IN_SCHEDULES
    )
