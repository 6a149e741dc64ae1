"""The schema of a space that is searched: `nce-sim explore SPACE.yaml`.

A space is every combination of the values of its axes, the machine changed by some of them, and the
question is which of them is best. Paths in it are relative to the folder that the command runs in.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveFloat, Tag, model_validator

from nce_sim.config.bundle import named_file, names_in
from nce_sim.config.campaign import NonNegativeInt, Share
from nce_sim.config.loader import FieldError, Strict, load_yaml, read_yaml
from nce_sim.config.salvage import Draft, salvage
from nce_sim.config.study import (
    AccuracySettings,
    AtLeastOne,
    Axes,
    Faults,
    Granularity,
    Name,
    OneOrMany,
    StudyConfig,
    StudyRanking,
    Varied,
)

Quantity = Literal["lost_points", "energy_uj", "latency_us", "area_mm2", "power_w"]
"""What a point is judged by; `lost_points` are 100 x (fault-free accuracy - accuracy),
or of the score, one minus the mean harm, where another outcome than a wrong answer is asked for."""

MOST_STEPS = 1000


class Range(Strict):
    """Evenly spaced shares: low, low + step ... as far as high."""

    low: Share
    high: Share
    step: PositiveFloat

    @model_validator(mode="after")
    def _goes_up(self) -> Self:
        if self.high < self.low:
            raise FieldError(("high",), f"is {self.high:g}, below low, {self.low:g}")
        if (self.high - self.low) / self.step > MOST_STEPS:
            raise FieldError(("step",), f"is {self.step:g}: that makes more than {MOST_STEPS}")
        return self

    @property
    def values(self) -> tuple[float, ...]:
        """The shares; each is rounded, so that 3 x 0.1 is the 0.3 that a list would hold."""
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(round(self.low + number * self.step, 12) for number in range(count))


def _range_or_list(given: Any) -> str:
    return "a range" if isinstance(given, dict | Range) else "a list"


Shares = Annotated[
    Annotated[Range, Tag("a range")]
    | Annotated[tuple[Share, ...], AtLeastOne, OneOrMany, Tag("a list")],
    Discriminator(_range_or_list),
]


def listed(shares: Range | tuple[float, ...]) -> tuple[float, ...]:
    """Return all shares of a range or a list."""
    return shares.values if isinstance(shares, Range) else shares


class PpeRatio(Strict):
    """The share of PPE lanes: columns of one array in exchange for columns of the other.

    A value takes the machine whose share is nearest to it.
    """

    keep: Literal["lanes", "area"] = Field(description="what all these machines have in common")
    values: Shares


class SearchAxes(Strict):
    """What is chosen: one value of every axis."""

    fraction: Shares = Field(description="asked share of the neurons on PEs")
    granularity: Annotated[tuple[Granularity, ...], AtLeastOne, OneOrMany] = ("neuron",)
    rankings: Annotated[tuple[StudyRanking, ...], AtLeastOne, OneOrMany] = (StudyRanking(),)
    ppe_ratio: PpeRatio | None = None
    machine: Annotated[tuple[Varied, ...], Field(strict=False), OneOrMany] = Field(
        default=(), description="fields of the machine's YAML and their values"
    )


class Objective(Strict):
    """What is to be least."""

    minimise: Quantity


class Constraints(Strict):
    """What a point may have at most."""

    lost_points: float | None = Field(default=None, ge=0, le=100)
    energy_uj: PositiveFloat | None = None
    latency_us: PositiveFloat | None = None
    area_mm2: PositiveFloat | None = None
    power_w: PositiveFloat | None = Field(default=None, description="mean over an inference")

    @property
    def limits(self) -> dict[str, float]:
        """The constraints that are given, by quantity."""
        given = {name: getattr(self, name) for name in Constraints.model_fields}
        return {name: limit for name, limit in given.items() if limit is not None}


class SpaceConfig(Strict):
    """A space and what is asked of it."""

    name: Name
    description: Name
    network: Name = Field(description="bundled, or the path of a model.yaml")
    machine: Name = Field(description="bundled, or a path")
    fault: Faults | None = Field(default=None, description="one, or a list of several at once")
    seed: NonNegativeInt = Field(default=0, description="of faults and random rankings")
    accuracy: AccuracySettings | None = None
    search: SearchAxes
    objective: Objective
    constraints: Constraints = Constraints()

    @property
    def measures_accuracy(self) -> bool:
        """Whether the objective or a constraint needs accuracy under faults."""
        return "lost_points" in (self.objective.minimise, *self.constraints.limits)

    def on_its_machine(self) -> StudyConfig:
        """Return the study of all splits of the space on the machine as its file has it."""
        grid = Axes(
            networks=(self.network,),
            machines=(self.machine,),
            rankings=self.search.rankings,
            granularities=self.search.granularity,
            fractions=listed(self.search.fraction),
            faults=(self.fault,) if self.measures_accuracy and self.fault is not None else (),
            seeds=(self.seed,),
        )
        return StudyConfig(
            name=self.name,
            description=self.description,
            measure=("accuracy", "cost") if self.measures_accuracy else ("cost",),
            grid=grid,
            accuracy=self.accuracy if self.measures_accuracy else None,
        )


def draft_space(name_or_path: str | Path) -> Draft[SpaceConfig]:
    """Read a space as far as it is right; `nce_sim.study.space.open_space` tells what is not.

    Raises InputError for an unknown name and for a file that is no YAML.
    """
    document = read_yaml(_path_of(name_or_path))
    return Draft(document, salvage(document, SpaceConfig))


def load_space(name_or_path: str | Path) -> SpaceConfig:
    """Load a bundled space by name, or any by the path of its YAML file.

    Raises InputError for an unknown name and for a file that does not fit the schema.
    """
    return load_yaml(_path_of(name_or_path), SpaceConfig)


def _path_of(name_or_path: str | Path) -> Path:
    return named_file("space", name_or_path, "studies", "explore")


def list_spaces() -> list[str]:
    """Return the names of the bundled spaces."""
    return names_in("studies", "explore")
