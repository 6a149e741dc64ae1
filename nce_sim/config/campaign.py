"""The schema of a fault-injection campaign: `nce-sim inject CAMPAIGN.yaml`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from nce_sim.config.bundle import named_file, names_in
from nce_sim.config.loader import FieldError, Strict, load_yaml

NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Many = Field(strict=False, min_length=1)


class TransientProcess(Strict):
    """Poisson, by element of the site: a lane, register or voter, or a bit of a memory."""

    kind: Literal["transient"]
    rate_per_cycle: NonNegativeFloat | None = None
    rate_per_second: NonNegativeFloat | None = None
    trace: str | None = Field(default=None, description="a table of traces/, or a path")

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if (self.rate_per_cycle is None) == (self.rate_per_second is None):
            raise ValueError("a transient process has one of rate_per_cycle and rate_per_second")
        return self


class SingleProcess(Strict):
    """So many faults in every inference, uniform over the site's elements and the cycles."""

    kind: Literal["single"]
    count: PositiveInt = 1


class FaultyElements(Strict):
    """Which elements are faulty."""

    share: Share | None = None
    probability: Share | None = None
    count: NonNegativeInt | None = None
    places: tuple[NonNegativeInt, ...] | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        names = ("share", "probability", "count", "places")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give one of share, probability, count and places, not {found}")
        return self


class PermanentProcess(FaultyElements):
    """Faulty from a cycle of the mission on."""

    kind: Literal["permanent"]
    onset_cycle: NonNegativeInt = 0


class IntermittentProcess(FaultyElements):
    """Faulty now and then: mean lengths of the two states of a Markov chain."""

    kind: Literal["intermittent"]
    on_cycles: PositiveFloat
    off_cycles: PositiveFloat


Process = Annotated[
    TransientProcess | SingleProcess | PermanentProcess | IntermittentProcess,
    Field(discriminator="kind"),
]


class ZeroEffect(Strict):
    """The word reads zero."""

    kind: Literal["zero"]
    detected: bool = False


class RandomEffect(Strict):
    """The word holds random bits."""

    kind: Literal["random"]


class FlipEffect(Strict):
    """Bits flip."""

    kind: Literal["flip"]
    bits: Annotated[int, Field(ge=1, le=32)] = 1
    bit: NonNegativeInt | None = Field(default=None, description="the lowest one; None: uniform")
    adjacent: bool = True


class StuckEffect(Strict):
    """One bit reads the same value."""

    kind: Literal["stuck"]
    value: Literal[0, 1] | None = None
    bit: NonNegativeInt | None = None


class GaussianEffect(Strict):
    """Noise on stored outputs, in units of the layer's mean activation."""

    kind: Literal["gaussian"]
    sigma: NonNegativeFloat


Effect = Annotated[
    ZeroEffect | RandomEffect | FlipEffect | StuckEffect | GaussianEffect,
    Field(discriminator="kind"),
]


class HardwareFault(Strict):
    """A process at a site, and what it does there."""

    site: str
    process: Process
    effect: Effect


class DropoutFault(Strict):
    """The paper's dropout."""

    dropout: Share


class NoiseFault(Strict):
    """The paper's additive Gaussian noise."""

    gaussian_noise: NonNegativeFloat


AnyFault = HardwareFault | DropoutFault | NoiseFault


class Supply(Strict):
    """A supply voltage of the unprotected domain: its rates come from a voltage table."""

    table: str | None = Field(
        default=None, description="a table of hw_configs/voltage, or a path; None: the machine's"
    )
    voltage_v: PositiveFloat | None = Field(
        default=None, description="None: the machine's own supply of its unprotected domain"
    )
    clock_mhz: PositiveFloat | None = Field(
        default=None, description="the engine's clock at that voltage; None: the machine's"
    )
    figure: Literal["low", "best", "high"] = Field(
        default="best", description="which end of the range of the rates"
    )


class Case(Strict):
    """Faults that strike together; or one process and effect at each of several sites in turn."""

    name: str
    series: str | None = Field(default=None, description="cases of a series share a line")
    faults: tuple[AnyFault, ...] = Field(default=(), strict=False)
    sites: tuple[str, ...] = Field(default=(), strict=False)
    process: Process | None = None
    effect: Effect | None = None
    supply: Supply | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        swept = (bool(self.sites), self.process is not None, self.effect is not None)
        if any(swept) and not all(swept):
            raise ValueError("sites, process and effect go together")
        if not (self.sites or self.faults or self.supply):
            raise ValueError("a case has faults, or a supply, or sites with process and effect")
        if self.sites and (self.faults or self.supply):
            raise FieldError(("sites",), "goes without faults and supply: make another case")
        return self


class RankingChoice(Strict):
    """How the neurons are ranked."""

    method: str = "lrp"
    images: PositiveInt = 500
    file: str | None = Field(default=None, description="a saved ranking in place of a new one")


class CampaignConfig(Strict):
    """A campaign: every case at every fraction, on the same images."""

    name: str
    description: str
    network: str
    machine: str
    ranking: RankingChoice = RankingChoice()
    fractions: tuple[Share, ...] = Field(strict=False, min_length=1)
    granularity: Literal["neuron", "block", "channel", "layer"] = "neuron"
    images: PositiveInt
    realisations: PositiveInt = 1
    calibration_images: PositiveInt = Field(
        default=500, description="training images for int8, clipping and mean activations"
    )
    cases: tuple[Case, ...] = Field(strict=False, min_length=1)


def load_campaign(name_or_path: str | Path) -> CampaignConfig:
    """Load a bundled campaign by name, or any by the path of its YAML file.

    Raises InputError for an unknown name and for a file that does not fit the schema.
    """
    path = named_file("campaign", name_or_path, "campaigns")
    return load_yaml(path, CampaignConfig)


def list_campaigns() -> list[str]:
    """Return the names of the bundled campaigns."""
    return names_in("campaigns")
