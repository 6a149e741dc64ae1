"""What a protection scheme adds to an outcome, without counting the same coverage twice."""

from dataclasses import dataclass

from nce_sim.protection.coverage import coverage
from nce_sim.safety.elements import Element
from nce_sim.safety.outcomes import Outcome
from nce_sim.safety.rates import FaultClass

OWN_LOGIC = ("voter", "check")
"""Parts that are mechanisms themselves: their faults without effect leave others unguarded."""


@dataclass(frozen=True)
class Masking:
    """Diagnostic coverage as it enters a row (ISO 26262-5:2018, annexes C and D).

    `residual` is the share of an outcome's violations that the scheme still takes away: 0 where
    the outcome holds behind the scheme. `latent` is the share of masked faults that are heard of.
    """

    residual: float
    latent: float
    reason: str


def masking_of(
    element: Element, fault_class: FaultClass, outcome: Outcome, *, lanes_change: bool
) -> Masking | None:
    """Return what an element's scheme adds to an outcome; None if it masks no such fault."""
    if element.scheme is None or element.part is None:
        return None
    claim = coverage(element.scheme, fault_class, element.part, lanes_change=lanes_change)
    if claim.residual == 0 and element.part not in OWN_LOGIC:
        return None
    if outcome.behind_scheme:
        reason = f"residual: within the probabilities, found behind {element.scheme.name}"
        return Masking(0.0, claim.latent, f"{reason}; latent, by mechanism: {claim.latent_reason}")
    reason = f"by mechanism of {element.scheme.name}: {claim.residual_reason}"
    return Masking(claim.residual, claim.latent, f"{reason} Latent: {claim.latent_reason}")
