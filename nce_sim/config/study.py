"""The schema of a study: `nce-sim sweep STUDY.yaml`.

A study is a grid of points, a list of them, or both. Every axis is a list, and a single value is a
list of one. Paths in a study are relative to the folder that the command runs in.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from nce_sim.config.bundle import named_file, names_in
from nce_sim.config.campaign import (
    DropoutFault,
    HardwareFault,
    NoiseFault,
    NonNegativeInt,
    RankingChoice,
    Share,
)
from nce_sim.config.loader import FieldError, Place, Strict, load_yaml, read_yaml
from nce_sim.config.salvage import Draft, salvage

Name = Annotated[str, Field(min_length=1)]
Granularity = Literal["neuron", "block", "channel", "layer"]
Value = bool | int | float | str | None
"""What a field of a machine may be set to."""

FAULT_METHODS = ("fault-aware", "fault-in-loop")
"""Methods of ranking that need to know the fault."""


def _listed(given: Any) -> Any:
    """Make a list of one of a single value."""
    return given if isinstance(given, list | tuple) else [given]


OneOrMany = BeforeValidator(_listed)
AtLeastOne = Field(strict=False, min_length=1)
AnyNumber = Field(strict=False)


class StudyRanking(RankingChoice):
    """How the neurons are ranked: by any method of `nce-sim rank`, or as a file says."""

    fault: str | None = Field(
        default=None,
        pattern=r"^(dropout|noise)=[0-9.eE+-]+$",
        description="what `fault-aware` and `fault-in-loop` rank for: dropout=P or noise=SIGMA",
    )
    objective: Literal["neurons", "energy", "latency"] = Field(
        default="neurons", description="damage is weighed against what protecting costs"
    )

    @model_validator(mode="after")
    def _parts_have_a_use(self) -> Self:
        given = self.model_fields_set
        if self.file is not None:
            for name in ("method", "images", "fault"):
                if name in given:
                    raise FieldError((name,), "goes without file, which says what it is")
        elif self.method in FAULT_METHODS and self.fault is None:
            raise FieldError(
                ("method",), f"{self.method} needs a fault, such as fault: dropout=0.5"
            )
        elif self.fault is not None and self.method not in FAULT_METHODS:
            raise FieldError(("fault",), f"goes with method {' or '.join(FAULT_METHODS)}")
        elif self.method == "random" and "images" in given:
            raise FieldError(("images",), "random looks at no images: leave it out")
        return self

    @property
    def needs_images(self) -> bool:
        """Whether it is made from training images."""
        return self.file is None and self.method != "random"

    @property
    def label(self) -> str:
        """What tells it from others of a study."""
        parts = [self.method if self.file is None else Path(self.file).name]
        parts += [f"for {self.fault}"] * (self.fault is not None)
        parts += [f"{self.images} images"] * self.needs_images
        parts += [f"by {self.objective}"] * (self.objective != "neurons")
        return ", ".join(parts)


class SupplyFault(Strict):
    """What fails at the machine's own supply of the unprotected domain, by its voltage table."""

    at_supply: Literal["low", "best", "high"] = Field(
        description="which figure of the range of the rates"
    )


def _kind_of_fault(given: Any) -> str | None:
    """Return which record a fault is, by the key that only it has."""
    keys = given if isinstance(given, dict) else getattr(type(given), "model_fields", {})
    for key in ("dropout", "gaussian_noise", "at_supply"):
        if key in keys:
            return f"{'an' if key == 'at_supply' else 'a'} {key} fault"
    return "a hardware fault" if {"site", "process", "effect"} & set(keys) else None


StudyFault = Annotated[
    Annotated[DropoutFault, Tag("a dropout fault")]
    | Annotated[NoiseFault, Tag("a gaussian_noise fault")]
    | Annotated[SupplyFault, Tag("an at_supply fault")]
    | Annotated[HardwareFault, Tag("a hardware fault")],
    Discriminator(
        _kind_of_fault,
        custom_error_type="fault",
        custom_error_message="a fault is {dropout: P}, {gaussian_noise: SIGMA}, {at_supply: best} "
        "or {site, process, effect} in the hardware, or a list of faults that strike together",
    ),
]
Faults = Annotated[tuple[StudyFault, ...], AtLeastOne, OneOrMany]
"""Faults that strike together."""


class Varied(Strict):
    """A field of the machines' YAML, by its path, and the values that it takes in turn."""

    field: Name = Field(description="such as unprotected.array.columns")
    values: Annotated[tuple[Value, ...], AtLeastOne, OneOrMany]


class Axes(Strict):
    """A grid: every value of every axis with every value of all others.

    The order of its points is that of its fields, the last one running fastest.
    """

    networks: Annotated[tuple[Name, ...], AtLeastOne, OneOrMany] = Field(
        description="bundled, or paths of a model.yaml"
    )
    machines: Annotated[tuple[Name, ...], AnyNumber, OneOrMany] = Field(
        default=(), description="bundled, or paths; none if only accuracy is measured"
    )
    vary: Annotated[tuple[Varied, ...], AnyNumber, OneOrMany] = ()
    rankings: Annotated[tuple[StudyRanking, ...], AtLeastOne, OneOrMany] = (StudyRanking(),)
    granularities: Annotated[tuple[Granularity, ...], AtLeastOne, OneOrMany] = ("neuron",)
    fractions: Annotated[tuple[Share, ...], AnyNumber, OneOrMany] = Field(
        default=(), description="asked share of the neurons on PEs; none for resilience"
    )
    faults: Annotated[tuple[Faults, ...], AnyNumber, OneOrMany] = Field(
        default=(), description="each item is a fault, or a list of several at once"
    )
    seeds: Annotated[tuple[NonNegativeInt, ...], AtLeastOne, OneOrMany] = (0,)


class AccuracySettings(Strict):
    """How accuracy under faults is measured.

    Every image is classified `realisations` times (once if nothing is said), each time under new
    faults; or images are drawn until the interval reaches `half_width` on either side.
    """

    images: PositiveInt | Literal["all"] = Field(
        default="all", description="the first images of the test set"
    )
    realisations: PositiveInt | None = None
    half_width: float | None = Field(default=None, gt=0, lt=0.5, description="such as 0.01")
    confidence: float = Field(default=0.95, gt=0, lt=1)
    precision: Literal["float32", "bfloat16", "float16", "int8"] | None = Field(
        default=None,
        description="None: float32, or the machine's number format for faults in its hardware",
    )
    outcome: Name = Field(
        default="top-1",
        description="what is harmful: top-1 (a wrong answer), costs=FILE.csv, confident=THRESHOLD, "
        "persistent=IMAGES or package.module:factory",
    )
    calibration_images: PositiveInt = Field(
        default=500, description="training images for mean activations, int8 and clipping"
    )

    @model_validator(mode="after")
    def _one_way_to_stop(self) -> Self:
        if self.realisations is not None and self.half_width is not None:
            raise FieldError(("half_width",), "and realisations exclude each other")
        return self


class StudyConfig(Strict):
    """A study: a grid of points, further points (each a small grid of its own), or both."""

    name: Name
    description: Name
    measure: Annotated[
        tuple[Literal["accuracy", "cost", "resilience"], ...], AtLeastOne, OneOrMany
    ] = Field(
        default=("accuracy", "cost"),
        description="of every point; or resilience, of the rankings and of nothing else",
    )  # fmt: skip
    grid: Axes | None = None
    points: tuple[Axes, ...] = Field(default=(), strict=False)
    accuracy: AccuracySettings | None = None

    @property
    def of_rankings(self) -> bool:
        """Whether the rankings themselves are looked at, not what comes of their splits."""
        return "resilience" in self.measure

    @property
    def parts(self) -> list[tuple[Place, Axes]]:
        """All grids, with their places in the file: the grid, then the points."""
        whole: list[tuple[Place, Axes]] = [] if self.grid is None else [(("grid",), self.grid)]
        return whole + [(("points", number), axes) for number, axes in enumerate(self.points)]

    def with_seeds(self, seeds: tuple[int, ...]) -> "StudyConfig":
        """Return the study with other seeds in every grid."""
        grid = None if self.grid is None else self.grid.model_copy(update={"seeds": seeds})
        points = tuple(axes.model_copy(update={"seeds": seeds}) for axes in self.points)
        return self.model_copy(update={"grid": grid, "points": points})


StudyDraft = Draft[StudyConfig]
"""A study's file as far as it is right."""


def draft_study(name_or_path: str | Path) -> StudyDraft:
    """Read a study as far as it is right; `nce_sim.study.point.points_of` tells what is not.

    Raises InputError for an unknown name and for a file that is no YAML.
    """
    document = read_yaml(path_of_study(name_or_path))
    return StudyDraft(document, salvage(document, StudyConfig))


def load_study(name_or_path: str | Path) -> StudyConfig:
    """Load a bundled study by name, or any by the path of its YAML file.

    Raises InputError for an unknown name and for a file that does not fit the schema.
    """
    return load_yaml(path_of_study(name_or_path), StudyConfig)


def path_of_study(name_or_path: str | Path) -> Path:
    """Return the file of a bundled study by name, or of any by its path.

    Raises InputError for an unknown name.
    """
    return named_file("study", name_or_path, "studies")


def list_studies() -> list[str]:
    """Return the names of the bundled studies."""
    return names_in("studies")
