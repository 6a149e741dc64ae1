"""How much of a network is protected: in neurons, in multiply-accumulates, in energy."""

from dataclasses import dataclass

import numpy as np

from nce_sim.machine.engine import Network, Run, simulate
from nce_sim.resilience.split import Split


@dataclass(frozen=True)
class ProtectionShare:
    """Shares of 1 that a split protects.

    `protection_pj` is what its run takes more than with everything unprotected, for the batch, and
    `energy` the share of this of what protecting everything takes more. Mixing has a price of its
    own, so that it may exceed 1; it is None on a machine where protecting everything takes no more.
    """

    neurons: float
    macs: float
    protection_pj: float
    energy: float | None

    def __str__(self) -> str:
        shares = f"protected: {self.neurons:.2%} of the neurons, {self.macs:.2%} of the MACs"
        spent = f"protection takes {self.protection_pj / 1e6:,.1f} uJ"
        if self.energy is None:
            return f"{shares}; {spent}, and protecting everything takes none"
        return f"{shares}; {spent}, {self.energy:.1%} of what protecting everything takes"


def protection_share(
    network: Network, split: Split, run: Run, *, mismatch_rate: float = 0.0, seed: int = 0
) -> ProtectionShare:
    """Return the shares of a simulated run, by simulating everything protected and nothing.

    `mismatch_rate` and `seed` are those of the run. Raises InputError if the split is another
    network's.
    """
    protected, unprotected = (
        simulate(
            network, run.machine, end_of(split, value), batch=run.program.batch,
            mismatch_rate=mismatch_rate, seed=seed,
        ).energy.total_pj
        for value in (False, True)
    )  # fmt: skip
    spent, whole = run.energy.total_pj - unprotected, protected - unprotected
    return ProtectionShare(
        neurons=1 - split.unprotected_fraction,
        macs=1 - run.mac_share_unprotected,
        protection_pj=spent,
        energy=spent / whole if whole > 0 else None,
    )


def end_of(split: Split, unprotected: bool) -> Split:
    """Return the split of the same network with all neurons in one domain."""
    masks = {name: np.full(mask.shape, unprotected) for name, mask in split.unprotected.items()}
    return Split(float(unprotected), "layer", masks)
