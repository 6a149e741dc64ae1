"""Safety figures of one machine, network and split: the FMEDA and what follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from numbers import Real
from typing import Any

import pandas as pd

from nce_sim.config.voltage_curves import Range
from nce_sim.errors import InputError
from nce_sim.safety.fmeda import Row
from nce_sim.safety.metrics import (
    dual_point_fit,
    latent_fault_metric,
    of_class,
    single_point_fault_metric,
)
from nce_sim.safety.ranges import total
from nce_sim.safety.rates import PERMANENT, TRANSIENT

NOT_A_CERTIFICATE = (
    "These figures are the engine's contribution, from published and assumed rates and measured "
    "probabilities; targets hold for the whole item, and this is no certificate."
)


@dataclass(frozen=True)
class SafetyInputs:
    """What the system around the engine brings.

    `ftti_ms` is the fault-tolerant time interval, `safe_state_ms` what the system needs to reach
    its safe state once the engine reports an error. Without an FTTI every DUE is a violation.
    """

    lifetime_h: float = 10_000.0
    ftti_ms: float | None = None
    safe_state_ms: float = 0.0
    with_external_memory: bool = False

    def __post_init__(self) -> None:
        _check_number("lifetime_h", self.lifetime_h, least=0.0)
        _check_number("safe_state_ms", self.safe_state_ms, least=0.0)
        if self.ftti_ms is not None:
            _check_number("ftti_ms", self.ftti_ms, least=0.0)


def _check_number(name: str, value: object, least: float) -> None:
    good = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if not good or value < least:  # type: ignore[operator]
        raise InputError(f"{name} must be a number of at least {least:g}, not {value!r}")


@dataclass(frozen=True)
class Reaction:
    """How long an error is on its way to the safe state: the longest inference, then the system."""

    inference_ms: float
    inputs: SafetyInputs

    @property
    def total_ms(self) -> float:
        """From a fault at the start of an inference to the safe state."""
        return self.inference_ms + self.inputs.safe_state_ms

    @property
    def in_time(self) -> bool:
        """Whether a detected error reaches the safe state within the FTTI."""
        return self.inputs.ftti_ms is not None and self.total_ms <= self.inputs.ftti_ms

    def __str__(self) -> str:
        if self.inputs.ftti_ms is None:
            return (
                f"reaction {self.total_ms:.3g} ms, no FTTI given: every DUE counts as a violation"
            )
        verdict = "DUEs are controlled" if self.in_time else "every DUE counts as a violation"
        return f"reaction {self.total_ms:.3g} ms, FTTI {self.inputs.ftti_ms:g} ms: {verdict}"


@dataclass(frozen=True)
class Target:
    """What ISO 26262-5:2018 asks of an item (tables 4, 5 and 6)."""

    asil: str
    spfm: float
    lfm: float
    pmhf_fit: float | None


TARGETS = (
    Target("B", 0.90, 0.60, 100.0),
    Target("C", 0.97, 0.80, 100.0),
    Target("D", 0.99, 0.90, 10.0),
)


@dataclass(frozen=True)
class Safety:
    """The FMEDA of an engine with its metrics; `counted` are the rows that enter the sums."""

    rows: tuple[Row, ...]
    reaction: Reaction

    @property
    def inputs(self) -> SafetyInputs:
        """What the system brings."""
        return self.reaction.inputs

    @cached_property
    def counted(self) -> tuple[Row, ...]:
        """The engine's rows, and the external memory's if asked for."""
        return tuple(row for row in self.rows if row.on_chip or self.inputs.with_external_memory)

    @cached_property
    def raw_fit(self) -> Range:
        """Rate of all faults."""
        return total(row.mode.rate_fit for row in self.counted)

    @cached_property
    def sdc_fit(self) -> Range:
        """Rate of silent wrong answers."""
        return total(row.sdc_fit for row in self.counted)

    @cached_property
    def critical_sdc_fit(self) -> Range:
        """Rate of right answers that become wrong silently."""
        return total(row.critical_sdc_fit for row in self.counted)

    @cached_property
    def due_fit(self) -> Range:
        """Rate of detected unrecoverable errors."""
        return total(row.due_fit for row in self.counted)

    @cached_property
    def spfm(self) -> Mapping[str, Range | None]:
        """Single-point fault metric of permanent and of transient faults, apart."""
        return {
            fault_class: single_point_fault_metric(of_class(self.counted, fault_class))
            for fault_class in (PERMANENT, TRANSIENT)
        }

    @cached_property
    def lfm(self) -> Range | None:
        """Latent fault metric, of permanent faults."""
        return latent_fault_metric(self.counted)

    @cached_property
    def residual_fit(self) -> Range:
        """Rate of single-point and residual faults, DUEs included that are not controlled."""
        return total(row.violating_fit for row in self.counted)

    @cached_property
    def dual_point_fit(self) -> Range:
        """The dual-point term over the lifetime."""
        return dual_point_fit(self.counted, self.inputs.lifetime_h)

    @cached_property
    def pmhf_fit(self) -> Range:
        """Contribution to the probabilistic metric for random hardware failures."""
        return total([self.residual_fit, self.dual_point_fit])

    def by_component(self, what: str = "sdc_fit") -> dict[str, Range]:
        """Return a rate of the rows ("sdc_fit", "due_fit" ...) by component, largest first."""
        names = dict.fromkeys(row.mode.element.component for row in self.counted)
        sums = {name: total(self._of(name, what)) for name in names}
        return dict(sorted(sums.items(), key=lambda item: -item[1].best))

    def _of(self, component: str, what: str) -> list[Range]:
        mine = [row for row in self.counted if row.mode.element.component == component]
        return [getattr(row, what) for row in mine]

    def frame(self) -> pd.DataFrame:
        """Return the FMEDA as a frame, a row each."""
        return pd.DataFrame([row.record() for row in self.rows])

    def summary(self) -> dict[str, Any]:
        """Return everything as plain data that JSON can hold, units in the names."""
        sums = ("raw_fit", "sdc_fit", "critical_sdc_fit", "due_fit", "residual_fit",
                "dual_point_fit", "pmhf_fit")  # fmt: skip
        return {
            **{name: _plain(getattr(self, name)) for name in sums},
            "spfm": {name: _plain(metric) for name, metric in self.spfm.items()},
            "lfm": _plain(self.lfm),
            "sdc_fit_by_component": {
                name: _plain(fit) for name, fit in self.by_component().items()
            },
            "reaction_ms": self.reaction.total_ms,
            "due_controlled": self.reaction.in_time,
            "inputs": asdict(self.inputs),
            "targets_of_the_item": [asdict(target) for target in TARGETS],
            "note": NOT_A_CERTIFICATE,
            "fmeda": [row.record() for row in self.rows],
        }

    def __str__(self) -> str:
        pairs: Sequence[tuple[str, Range]] = (
            ("SDC", self.sdc_fit), ("DUE", self.due_fit), ("PMHF contribution", self.pmhf_fit),
        )  # fmt: skip
        return ", ".join(f"{name} {shown_fit(fit)}" for name, fit in pairs) + f"; {self.reaction}"


def shown_fit(fit: Range) -> str:
    """Return a rate with its range, to two digits: more would be false precision."""
    return f"{_two_digits(fit.best)} FIT [{_two_digits(fit.low)}, {_two_digits(fit.high)}]"


def _two_digits(value: float) -> str:
    return "0" if value == 0 else f"{float(f'{value:.2g}'):g}"


def _plain(figure: Range | None) -> dict[str, float] | None:
    return None if figure is None else figure._asdict()
