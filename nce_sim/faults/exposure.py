"""How often a machine is struck: the state of each site, and its raw rate of transient faults.

A design with less state, or sturdier cells, is struck less often; what a strike then does is a
matter of injection. Rates are those of the technology table: single-bit upsets of SRAM cells,
flip-flops and external memory, and transients of gates that the flip-flop behind them latches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nce_sim.config.machine_schema import MachineConfig
from nce_sim.config.technology import End, Technology
from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip
from nce_sim.faults.mission import check_fault, space_of
from nce_sim.faults.processes import Fault, Single
from nce_sim.faults.sites import (
    LANE_COMPONENTS,
    STORE_COMPONENTS,
    Site,
)
from nce_sim.machine.lookup import Schedule
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED

BITS_PER_MBIT = 2**20

BEFORE_VOTE = ("weight", "input", "accumulator", "lane")
"""What each copy of a lane has for itself: a vote or comparison follows."""


@dataclass(frozen=True)
class Exposure:
    """One site of a machine: `bits` that can flip, and how often one does.

    `fit` is the rate of all of them together, in failures per 1e9 hours. `covered` says which
    mechanism makes it certain that one flipped bit there never ends in a silent error; empty if
    none does.
    """

    fault: Fault
    bits: int
    fit: float
    covered: str = ""

    @property
    def site(self) -> Site:
        """Where it is."""
        return self.fault.site


def exposures_of(
    schedule: Schedule, technology: Technology, end: End = "value", unused: str | None = None
) -> tuple[Exposure, ...]:
    """Return all sites of the machine of a schedule that transient faults can strike.

    `end` takes the rates at an end of their range. `unused` names a domain that no design would
    build, if there is one: it has no sites, and nor has the protection map then. The map of a
    machine with two domains is left out too, where a code covers it.
    """
    machine = schedule.program.machine
    if machine.fabric is not None:
        raise InputError(
            f"machine '{machine.name}' has a fabric, whose lanes change their domain: exposures "
            f"are counted for dedicated arrays"
        )
    domains = [name for name in DOMAINS if name != unused]
    found = []
    for site in _sites(machine, domains):
        fault = Fault(site, Single(), BitFlip())
        check_fault(fault, machine)
        space = space_of(fault, schedule)
        bits = space.elements
        if site.on_array:
            bits *= space.word_bits
        if bits:
            rate = space.rate_factor * fit_per_mbit(site, technology, machine, end)
            covered = covered_by(site, machine, domains)
            found.append(Exposure(fault, bits, bits / BITS_PER_MBIT * rate, covered))
    return tuple(found)


def _sites(machine: MachineConfig, domains: list[str]) -> Iterator[Site]:
    """Yield the sites of the domains in use, and of what they share."""
    for name in domains:
        scheme = machine.scheme_of(name)
        for component in (*LANE_COMPONENTS, "column", *STORE_COMPONENTS):
            yield Site(name, component)
        if scheme.votes or scheme.check:
            yield Site(name, "voter")
    yield Site(None, "bus")
    if len(domains) == len(DOMAINS):
        yield Site(None, "protection_map")


def fit_per_mbit(
    site: Site, technology: Technology, machine: MachineConfig, end: End = "value"
) -> float:
    """Return the raw rate of a site, in FIT per 2^20 bits.

    Gates' transients are a share of the flip-flops' own upsets, and strike the flip-flop that
    latches them; a voter has gates only.
    """
    rates = technology.fault_rates
    if site.component == "memory":
        return technology.memories[machine.memory.kind].upset_fit_per_mbit.at(end)
    if site.component in STORE_COMPONENTS or site.component == "protection_map":
        return rates.sram_upset_fit_per_mbit.at(end)
    share, flip_flop = rates.logic_transient_share.at(end), rates.flip_flop_upset_fit_per_mbit
    return flip_flop.at(end) * (share if site.component == "voter" else 1 + share)


def covered_by(site: Site, machine: MachineConfig, domains: list[str]) -> str:
    """Return why one flipped bit of a site never ends in a silent error; empty if it may.

    Majorities outvote it, comparisons notice it, and codes correct or notice it. Where idle PPEs
    take unprotected neurons, buffers hold words without check bits: nothing is certain of them.
    """
    if site.on_array:
        assert site.domain is not None
        scheme = machine.scheme_of(site.domain)
        if site.component in BEFORE_VOTE and (scheme.corrects or scheme.compares):
            return scheme.name
        return scheme.name if site.component == "voter" and scheme.compares else ""
    code = _code_of(site, machine)
    mixed = UNPROTECTED in domains and PROTECTED in domains
    foreign = site.component == "input_buffer" or machine.overflow
    if mixed and site.domain == PROTECTED and foreign and site.component != "memory":
        return ""
    return code if MEMORY_SCHEMES[code].detects else ""


def _code_of(site: Site, machine: MachineConfig) -> str:
    """Return the scheme of the words of a memory; the bus has none."""
    if site.component == "bus":
        return "none"
    if site.component == "memory":
        return machine.memory.protected_scheme if site.domain == PROTECTED else "none"
    owner = PROTECTED if site.domain is None else site.domain
    return machine.domains[owner].buffers.scheme
