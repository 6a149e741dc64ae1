"""The damage expected from faults of a PE's lanes: what the fault-aware ranking ranks by."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import MachineConfig
from nce_sim.errors import InputError
from nce_sim.faults.displacement import LayerWords, changes_of
from nce_sim.faults.effects import Change, Effect
from nce_sim.faults.hit_chance import hit_chances
from nce_sim.faults.mission import check_fault
from nce_sim.faults.processes import Elements, Fault, Process
from nce_sim.machine.engine import simulate
from nce_sim.machine.lookup import Schedule
from nce_sim.resilience.damage import Means, Objective, Sensitivity
from nce_sim.resilience.split import Split
from nce_sim.schedule.domains import UNPROTECTED
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import PRECISION_OF_FORMAT, Executable, blocks, prepare
from nce_sim.workload.graph import Workload

IN_CACHE = 1 << 18
"""Neurons whose words are changed at once: their temporaries stay in the caches."""

COMPONENTS = ("accumulator", "lane", "output")
"""Components whose faults displace an output by what one word says."""


@dataclass(frozen=True)
class LaneDamage:
    """The chance that a fault of a lane costs the answer, bounded to first order.

    `chances` has the chance of being hit in an inference by layer, `changes` the equally likely
    changes of the word, `ranges` the ends that lanes which clip hold outputs in, by layer.
    """

    fault: Fault
    machine: str
    executable: Executable
    chances: Mapping[str, float]
    changes: Change
    ranges: Mapping[str, tuple[float, float]]

    objective: ClassVar[Objective] = "margin"

    def damage(self, seen: Sensitivity) -> Tensor:
        """Return P(hit) x E[min(1, (d x slope / margin)^2)] over the displacements d.

        A displacement d changes the margin m by d x slope to first order, and a right answer is
        lost only by a change of at least m: P(|change| >= m) <= E[min(1, (change / m)^2)], Markov's
        inequality. No hit costs more than the answer, so that displacements beyond the expansion
        count 1, as do those that are no numbers; an answer that is wrong anyway costs nothing.
        """
        at_once = max(1, IN_CACHE // seen.layer.outputs)
        parts = [self._damage(seen.of(block)) for block in blocks(len(seen.output), at_once)]
        return torch.cat(parts)

    def scores(self, means: Means) -> Means:
        """Return the damages themselves: chances to lose an answer, whatever the layer."""
        return means

    def _damage(self, seen: Sensitivity) -> Tensor:
        """Return the damage of a few images."""
        if self.fault.site.component == "output":
            words = LayerWords.outputs(self.executable, seen)
        else:
            words = LayerWords.sums(self.executable, seen, self.ranges.get(seen.layer.name))
        margin = seen.objective.view(-1, *[1] * (seen.output.dim() - 1))
        right = margin > 0
        by_unit = torch.where(right, seen.slope / margin, 0.0)
        total = torch.zeros_like(seen.output)
        for displacement in words.displaced(self.changes):
            total += _bound(displacement, by_unit)
        return total.mul_(right).mul_(self.chances[seen.layer.name] / len(self.changes))

    def __str__(self) -> str:
        process, effect = (
            f"{each.name}{settings and f' ({settings})'}"
            for each in (self.fault.process, self.fault.effect)
            for settings in [_settings(each)]
        )
        return f"{self.fault.site}: {process}, {effect}, on {self.machine}"


def _settings(part: Process | Effect | Elements) -> str:
    """Return what sets a part of a fault apart from its defaults: "rate 1e-07"."""
    given = [(each, getattr(part, each.name)) for each in fields(part) if each.init]
    return ", ".join(
        f"{each.name} {_settings(value) if isinstance(value, Elements) else value}"
        for each, value in given
        if value != each.default
    )


def _bound(displacement: Tensor, by_unit: Tensor) -> Tensor:
    """Return the bound of the chance that the answer is lost; overwrites the displacement."""
    change = displacement.mul_(by_unit).square_()
    return change.nan_to_num_(nan=1.0).clamp_(max=1)  # infinity x 0 is no number either


def expected_damage(
    fault: Fault,
    network: Workload,
    machine: Machine,
    *,
    calibration: Calibration | None = None,
    device: str = "cpu",
) -> LaneDamage:
    """Return what `fault` is expected to cost on `machine`: a fault for a fault-aware ranking.

    The site is `unprotected.output`, `.lane` or `.accumulator`; the effect is BitFlip, Zero,
    StuckAt or RandomValue. The words are those of the machine's number format; int8, and sums on
    lanes that clip, need a `calibration`. How long neurons occupy their lanes is simulated with
    all of them unprotected.

    Raises InputError for anything else, and where a scheme of the PEs mends or notices the fault.
    """
    if not isinstance(fault, Fault):
        raise InputError(
            f"expected_damage takes a Fault(site, process, effect), not {fault!r}: Dropout and "
            f"GaussianNoise go to rank(..., fault=) as they are"
        )
    config = machine.config
    _check_site(fault, config)
    changes = changes_of(fault.effect, fault.site.word_bits(config))
    precision = PRECISION_OF_FORMAT[config.number_format]
    executable = prepare(network, precision, device, calibration)
    return LaneDamage(
        fault,
        config.name,
        executable,
        hit_chances(fault, _all_unprotected(network, machine)),
        changes,
        _ranges(fault, config, calibration),
    )


def _check_site(fault: Fault, machine: MachineConfig) -> None:
    """Raise InputError unless a fault there displaces what bare PEs compute."""
    site = fault.site
    if site.domain != UNPROTECTED or site.component not in COMPONENTS:
        known = ", ".join(f"{UNPROTECTED}.{each}" for each in COMPONENTS)
        raise InputError(f"{site}: expected damage is known for {known}: take one of these")
    scheme = machine.scheme_of(UNPROTECTED)
    mends = scheme.corrects or scheme.detects_any
    if scheme.name == "ideal" or (mends and site.component != "output"):
        raise InputError(
            f"{site}: the PEs of machine '{machine.name}' are protected by '{scheme.name}': a "
            f"single fault there displaces no output unnoticed: take a machine whose PEs are bare"
        )
    check_fault(fault, machine)


def _all_unprotected(network: Workload, machine: Machine) -> Schedule:
    """Return the schedule of an inference that PEs compute alone: the split is yet to be made."""
    masks = {layer.name: np.ones(layer.out_shape, bool) for layer in network.neuron_layers}
    config = machine.config.model_copy(update={"overflow": False})
    alone = machine.model_copy(update={"config": config})
    return simulate(network, alone, Split(1.0, "neuron", masks)).schedule


def _ranges(
    fault: Fault, machine: MachineConfig, calibration: Calibration | None
) -> Mapping[str, tuple[float, float]]:
    """Return the ends that PEs which clip hold what follows from their sums in."""
    if not machine.unprotected.array.clip or fault.site.component == "output":
        return {}
    if calibration is None:
        raise InputError(
            f"the PEs of machine '{machine.name}' clip, by the ranges of a calibration: make one "
            f"with calibrate(network, images), and pass it as calibration=..."
        )
    return {name: (low, calibration.largest[name]) for name, low in calibration.smallest.items()}
