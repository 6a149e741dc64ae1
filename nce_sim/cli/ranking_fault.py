"""The fault that `nce-sim rank --method fault-aware` ranks for, from its options."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nce_sim.errors import InputError

if TYPE_CHECKING:
    from nce_sim.faults.models import FaultModel
    from nce_sim.resilience.damage import Damaging
    from nce_sim.workload.datasets import Dataset
    from nce_sim.workload.graph import Workload

IN_HARDWARE = {"flip": "unprotected.output", "dead-lanes": "unprotected.lane"}
"""Kinds of fault that strike a machine, and where they do if `--site` does not say."""

KNOWN = "dropout=P, noise=SIGMA, flip=RATE or dead-lanes=N"


@dataclass(frozen=True)
class AskedFault:
    """A fault as "kind=level"; faults of the hardware need a machine and may name a site.

    Raises InputError for an unknown kind, a level that is no number, and where these do not go
    together.
    """

    text: str
    machine: str | None = None
    site: str | None = None

    def __post_init__(self) -> None:
        kind, _, level = self.text.partition("=")
        try:
            float(level)
        except ValueError:
            kind = ""
        if kind not in ("dropout", "noise", *IN_HARDWARE):
            raise InputError(f"--fault must be {KNOWN}, such as dropout=0.5, not '{self.text}'")
        if kind in IN_HARDWARE and self.machine is None:
            raise InputError(
                f"--fault {self.text} strikes the lanes of a machine: name it, such as --machine "
                f"nce-28nm"
            )
        if kind not in IN_HARDWARE and (self.machine or self.site):
            raise InputError(
                f"--fault {self.text} strikes outputs, whatever the machine: leave --machine and "
                f"--site out"
            )

    def on(self, network: "Workload", data: "Dataset", device: str) -> "Damaging":
        """Return the fault, with what has to be measured on the images."""
        kind, _, level = self.text.partition("=")
        if kind in IN_HARDWARE:
            return self._in_hardware(kind, float(level), network, data, device)
        return self.on_outputs(network, data, device)

    def on_outputs(self, network: "Workload", data: "Dataset", device: str) -> "FaultModel":
        """Return a fault of the paper's models; noise is measured on the images.

        Raises InputError for a fault of the hardware.
        """
        from nce_sim.accuracy.evaluate import mean_activation
        from nce_sim.faults.models import Dropout, GaussianNoise

        kind, _, level = self.text.partition("=")
        if kind in IN_HARDWARE:
            raise InputError(f"--fault {self.text}: here it is dropout=P or noise=SIGMA")
        if kind == "dropout":
            return Dropout(float(level))
        return GaussianNoise(float(level), mean_activation(network, data.images, device=device))

    def _in_hardware(
        self, kind: str, level: float, network: "Workload", data: "Dataset", device: str
    ) -> "Damaging":
        """Return a fault of a machine's lanes; int8 and lanes that clip are calibrated."""
        from nce_sim.config.machine import load_machine
        from nce_sim.faults.effects import BitFlip, Zero
        from nce_sim.faults.lane_damage import expected_damage
        from nce_sim.faults.processes import Elements, Fault, Permanent, Transient
        from nce_sim.faults.sites import Site
        from nce_sim.workload.calibration import calibrate

        assert self.machine is not None
        machine = load_machine(self.machine)
        site = Site.parse(self.site or IN_HARDWARE[kind])
        if kind == "flip":
            fault = Fault(site, Transient(level), BitFlip())
        elif level.is_integer():
            fault = Fault(site, Permanent(Elements(count=int(level))), Zero())
        else:
            raise InputError(f"--fault dead-lanes=N needs a whole number of lanes, not {level:g}")
        config = machine.config
        needed = config.number_format == "int8" or config.unprotected.array.clip
        calibration = calibrate(network, data.images, device=device) if needed else None
        return expected_damage(fault, network, machine, calibration=calibration, device=device)
