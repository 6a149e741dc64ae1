"""The schema of an array scheme: of what the protection of a lane is made.

The bundled schemes stand here, since the name of a scheme in a machine's file is checked against
them; a file may add its own under `schemes:`. What a scheme catches is nowhere written down: it
follows from its mechanism, in fault injection (`nce_sim.faults.voting`) and in the figures of
`nce_sim.protection.coverage`.
"""

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from nce_sim.config.loader import FieldError, Strict
from nce_sim.config.technology import Figure

Check = Literal["parity", "residue", "checksum"]

WHOLE_NUMBER_CHECKS = ("residue", "checksum")
"""Checks that follow sums of whole numbers; rounding floats have no such code."""


class ArrayScheme(Strict):
    """Protection of the lanes of an array.

    The fields that cost multiplies: `copies` multiplier-accumulators with their registers in each
    lane; `repeats` runs of every wave, of which a lane keeps all results but the last (32 bits
    each); one 32-bit voter or comparator a lane if it `votes`; a `checksum_row` of lanes;
    `energy_share` and `area_share` of what the lane has without them.
    """

    name: str = Field(min_length=1)
    description: str = Field(default="", description="one line, for lists and reports")
    copies: PositiveInt = Field(default=1, description="multiplier-accumulators of a lane")
    repeats: PositiveInt = Field(default=1, description="runs of every wave")
    votes: bool = Field(
        default=False,
        description="whether the results of copies or repeats meet: of three the majority wins bit "
        "by bit, two are compared",
    )
    retries: bool = Field(
        default=False,
        description="whether a wave runs once more where a fault is detected; else that is a DUE",
    )
    check: Check | None = Field(
        default=None,
        description="a code beside the lane: a parity bit of each register, the residue of the sum "
        "modulo 3, or a checksum row of lanes; none",
    )
    detects: float = Field(
        default=0.0, ge=0, le=1,
        description="share of wrong sums of lanes that some other logic notices",
    )  # fmt: skip
    reports: bool = Field(
        default=False,
        description="whether the controller hears of what a majority corrects",
    )
    rate_factor: PositiveFloat = Field(
        default=1.0, description="rate of transient faults against that of ordinary cells"
    )
    energy_share: Figure | None = Field(
        default=None, description="energy that it adds to a lane, as a share of the lane's"
    )
    area_share: Figure | None = Field(
        default=None, description="area that it adds to a lane, as a share of the lane's"
    )

    @property
    def work_factor(self) -> int:
        """Multiply-accumulates done for each one that counts, the checksum row's apart."""
        return self.copies * self.repeats

    @property
    def corrects(self) -> bool:
        """Whether it takes a majority."""
        return self.work_factor == 3

    @property
    def compares(self) -> bool:
        """Whether it compares two results."""
        return self.work_factor == 2

    @property
    def checksum_row(self) -> bool:
        """Whether one more row of lanes adds up the others: columns lanes, and no row else."""
        return self.check == "checksum"

    @property
    def detects_any(self) -> bool:
        """Whether anything notices wrong results that it cannot correct."""
        return self.compares or self.check is not None or self.detects > 0

    @field_validator("check", mode="before")
    @classmethod
    def _none(cls, check: Any) -> Any:
        """Let a file say `check: none`."""
        return None if check == "none" else check

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse what no mechanism gives a meaning to."""
        if self.work_factor > 3:
            raise FieldError(
                ("copies",),
                f"copies x repeats is {self.work_factor}: one result, two that are compared, or "
                f"three of which the majority wins",
            )
        if self.votes != (self.work_factor > 1):
            raise FieldError(
                ("votes",),
                f"is {str(self.votes).lower()} with copies x repeats of {self.work_factor}: true "
                f"belongs to 2 or 3, false to 1",
            )
        if self.checksum_row and self.work_factor > 1:
            raise FieldError(("check",), "is checksum: its lanes have one copy and one run")
        if self.retries and not self.detects_any:
            raise FieldError(("retries",), "is true, but nothing in it detects")
        if self.reports and not self.corrects:
            raise FieldError(
                ("reports",),
                "is true, but nothing is corrected: what is detected is reported anyway",
            )
        return self


HARDENED_RATE_FACTOR = 0.1
"""Assumed from the best published flip-flops: BISER reports a rate more than 10 times lower (Mitra
et al., IEEE Computer 2005)."""

ARRAY_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        ArrayScheme(name="none", description="bare lanes"),
        ArrayScheme(name="ideal", description="the paper's assumption: never wrong, free of cost"),
        ArrayScheme(
            name="tmr", description="three copies, majority of their sums", copies=3, votes=True
        ),
        ArrayScheme(
            name="dmr_retry", description="two copies; the wave runs again where they differ",
            copies=2, votes=True, retries=True,
        ),
        ArrayScheme(
            name="temporal_dmr", description="two runs; the wave runs again where they differ",
            repeats=2, votes=True, retries=True,
        ),
        ArrayScheme(
            name="temporal_tmr", description="three runs, majority of their sums", repeats=3,
            votes=True,
        ),
        ArrayScheme(
            name="parity", description="a parity bit in each register of a lane", retries=True,
            check="parity",
        ),
        ArrayScheme(
            name="residue", description="sums checked modulo 3, int8 only", retries=True,
            check="residue",
        ),
        ArrayScheme(
            name="abft", description="a row of checksum lanes, int8 only", retries=True,
            check="checksum",
        ),
        ArrayScheme(
            name="hardened", description="registers of hardened cells, struck less often",
            rate_factor=HARDENED_RATE_FACTOR,
        ),
    )
}  # fmt: skip
"""The bundled schemes by name."""
