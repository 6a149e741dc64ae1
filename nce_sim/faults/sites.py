"""Where faults strike: every register, voter, buffer, beat and bit that is a site of its own.

A site is a component of one domain, or of both. Its *elements* are the physical places that fail
one by one: lanes (copies of protected lanes apart), columns, voters, or bits of a memory.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from nce_sim.config.machine_schema import MachineConfig
from nce_sim.config.technology import BYTES_BY_FORMAT
from nce_sim.errors import InputError
from nce_sim.schedule.domains import DOMAINS

LaneComponent = Literal["weight", "input", "accumulator", "lane", "output"]
SharedComponent = Literal["column", "voter"]
StoreComponent = Literal["input_buffer", "weight_buffer", "output_buffer", "resident", "memory"]
JointComponent = Literal["bus", "protection_map"]
Component = LaneComponent | SharedComponent | StoreComponent | JointComponent

LANE_COMPONENTS: tuple[str, ...] = get_args(LaneComponent)
ARRAY_COMPONENTS: tuple[str, ...] = (*LANE_COMPONENTS, *get_args(SharedComponent))
STORE_COMPONENTS: tuple[str, ...] = get_args(StoreComponent)
JOINT_COMPONENTS: tuple[str, ...] = get_args(JointComponent)

SUM_BITS = 32
"""Width of a sum, and of what a voter or comparator reads."""

MEANING = {
    "weight": "operand register of one lane that holds a weight",
    "input": "operand register of one lane that holds an input",
    "accumulator": "sum register of one lane",
    "lane": "the lane as a whole: the sum that it hands on",
    "output": "result register behind the voter and the non-linearity",
    "column": "weight register that feeds all lanes of a column",
    "voter": "voter or comparator of one protected lane, in the cycle of the vote",
    "input_buffer": "bits of both input buffers",
    "weight_buffer": "bits of both weight buffers",
    "output_buffer": "bits of both output buffers",
    "resident": "bits of the buffer for maps that stay on the chip",
    "memory": "bits of the domain's region of external memory that are in use",
    "bus": "bits of the beats on the bus",
    "protection_map": "bits of the map that tells which neurons are protected",
}


@dataclass(frozen=True)
class Site:
    """A component, and its domain; `domain` is None for the bus and the protection map."""

    domain: str | None
    component: str

    def __post_init__(self) -> None:
        joint = self.component in JOINT_COMPONENTS
        known = joint or self.component in (*ARRAY_COMPONENTS, *STORE_COMPONENTS)
        if not known or (self.domain is None) != joint or self.domain not in (None, *DOMAINS):
            given = self.component if self.domain is None else f"{self.domain}.{self.component}"
            raise InputError(f"unknown site '{given}': known are {', '.join(site_names())}")

    @staticmethod
    def parse(text: str) -> "Site":
        """Return the site of "unprotected.accumulator", "bus" ...

        Raises InputError for an unknown one.
        """
        domain, dot, component = text.partition(".")
        return Site(domain, component) if dot else Site(None, text)

    @property
    def on_array(self) -> bool:
        """Whether it is part of an array of lanes."""
        return self.component in ARRAY_COMPONENTS

    def is_one_a_column(self, machine: MachineConfig) -> bool:
        """Whether all lanes of a column share it: its weight, or the end of its checksum."""
        if self.component == "voter" and self.domain is not None:
            return machine.scheme_of(self.domain).checksum_row
        return self.component == "column"

    def word_bits(self, machine: MachineConfig) -> int:
        """Return the width of the words that are struck."""
        if self.component in ("accumulator", "lane", "voter"):
            return SUM_BITS
        if self.component == "protection_map":
            return 1
        return 8 * BYTES_BY_FORMAT[machine.number_format]

    def __str__(self) -> str:
        return self.component if self.domain is None else f"{self.domain}.{self.component}"


def site_names() -> list[str]:
    """Return the names of all sites."""
    both = (*ARRAY_COMPONENTS, *STORE_COMPONENTS)
    return [*(f"{domain}.{each}" for domain in DOMAINS for each in both), *JOINT_COMPONENTS]


@dataclass(frozen=True)
class LaneSpace:
    """The elements of a site on an array: rows x columns x copies, the last running fastest.

    On a fabric the columns are the physical ones, whichever domain they serve at the time, and
    there are no copies beside them. Columns have one element each; a voter one a lane.
    """

    rows: int
    columns: int
    copies: int
    on_fabric: bool

    @staticmethod
    def of(site: Site, machine: MachineConfig) -> "LaneSpace":
        """Return the elements of a site on an array of a machine."""
        assert site.domain is not None
        if machine.fabric is not None:
            rows = 1 if site.component == "column" else machine.fabric.rows
            return LaneSpace(rows, machine.fabric.columns, 1, True)
        array = machine.arrays[site.domain]
        rows = 1 if site.is_one_a_column(machine) else array.rows
        single = site.component in ("column", "voter", "output")
        copies = 1 if single else machine.scheme_of(site.domain).copies
        return LaneSpace(rows, array.columns, copies, False)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.rows * self.columns * self.copies
