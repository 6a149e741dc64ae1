"""Failure modes, effects and diagnostic analysis: one row a component, failure mode and class.

Terms and formulas are those of ISO 26262-5:2018, annex C: a fault is single-point or residual if it
violates the safety goal by itself, latent if a mechanism hides it and nobody hears of it, else
detected or safe.
"""

from dataclasses import dataclass
from functools import cached_property

from nce_sim.config.voltage_curves import Range
from nce_sim.safety.elements import EXTERNAL_MEMORY
from nce_sim.safety.masking import Masking
from nce_sim.safety.outcomes import Outcome
from nce_sim.safety.ranges import ZERO, complement, product, scaled, sum_of_shares
from nce_sim.safety.rates import PERMANENT, FailureMode


@dataclass(frozen=True)
class Row:
    """One failure mode with what becomes of it.

    `masking` is what the mechanism does beyond the outcome. It is None where nothing masks faults:
    those without effect are safe then. `due_violates`: no safe state is reached in time.
    """

    mode: FailureMode
    outcome: Outcome
    masking: Masking | None
    due_violates: bool

    @property
    def on_chip(self) -> bool:
        """Whether it belongs to the engine's chip."""
        return self.mode.element.component != EXTERNAL_MEMORY

    @property
    def raw_fit(self) -> Range:
        """Rate of all faults of this mode."""
        return self.mode.rate_fit

    @property
    def uncovered(self) -> float:
        """The share of faults that the mechanism leaves, beyond what was measured."""
        return 1.0 if self.masking is None else 1 - self.masking.residual

    @cached_property
    def sdc_fit(self) -> Range:
        """Rate of silent wrong answers: rate x P(SDC) x (1 - residual coverage)."""
        return self._rate_of(self.outcome.sdc)

    @cached_property
    def critical_sdc_fit(self) -> Range:
        """Rate of right answers that become wrong silently."""
        return self._rate_of(self.outcome.critical_sdc)

    @cached_property
    def due_fit(self) -> Range:
        """Rate of detected unrecoverable errors."""
        return self._rate_of(self.outcome.due)

    def _rate_of(self, share: Range) -> Range:
        return scaled(product(self.mode.rate_fit, share), self.uncovered)

    @cached_property
    def violating_share(self) -> Range:
        """Share of the faults that violate the safety goal by themselves."""
        due = self.outcome.due if self.due_violates else ZERO
        return scaled(sum_of_shares(self.outcome.sdc, due), self.uncovered)

    @cached_property
    def violating_fit(self) -> Range:
        """Rate of single-point and residual faults."""
        return product(self.mode.rate_fit, self.violating_share)

    @cached_property
    def hidden_share_of_others(self) -> Range:
        """Share that is latent of the faults that do not violate by themselves.

        Everything that a mechanism masks counts, safe or not, less what is reported: by its latent
        coverage, or as a DUE that is controlled.
        """
        if self.masking is None or self.mode.fault_class != PERMANENT:
            return ZERO
        due = ZERO if self.due_violates else scaled(self.outcome.due, self.uncovered)
        others = complement(self.violating_share)
        seen = Range(*(
            min(1.0, part / whole) if whole > 0 else 1.0
            for part, whole in zip(due, others, strict=True)
        ))  # fmt: skip
        return scaled(complement(seen), 1 - self.masking.latent)

    @cached_property
    def other_fit(self) -> Range:
        """Rate of the faults that do not violate by themselves."""
        return product(self.mode.rate_fit, complement(self.violating_share))

    @cached_property
    def latent_fit(self) -> Range:
        """Rate of latent faults."""
        return product(self.other_fit, self.hidden_share_of_others)

    @property
    def coverage_basis(self) -> str:
        """Say where the coverage comes from."""
        if self.masking is not None:
            return self.masking.reason
        return "nothing masks it"

    def record(self) -> dict[str, str | float]:
        """Return the row as plain data: rates in FIT, shares from 0 to 1."""
        mode = self.mode
        return {
            "component": mode.element.component,
            "element": mode.element.name,
            "failure_mode": mode.mode,
            "fault_class": mode.fault_class,
            "in_engine": str(self.on_chip).lower(),
            "scheme": mode.element.scheme_name,
            **_ends("raw_fit", mode.rate_fit),
            **_ends("p_sdc", self.outcome.sdc),
            **_ends("p_critical_sdc", self.outcome.critical_sdc),
            **_ends("p_due", self.outcome.due),
            "residual_coverage": 1 - self.uncovered,
            "latent_coverage": 0.0 if self.masking is None else self.masking.latent,
            **_ends("sdc_fit", self.sdc_fit),
            **_ends("critical_sdc_fit", self.critical_sdc_fit),
            **_ends("due_fit", self.due_fit),
            **_ends("violating_fit", self.violating_fit),
            **_ends("latent_fit", self.latent_fit),
            "rate_source": mode.rate_source,
            "probability_source": self.outcome.source,
            "coverage_source": self.coverage_basis,
        }


def _ends(name: str, figure: Range) -> dict[str, float]:
    """Return the figure under its name, and both ends of its range."""
    return {f"{name}_low": figure.low, name: figure.best, f"{name}_high": figure.high}
