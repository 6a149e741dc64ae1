"""Energy of one inference: activity counts times energy per action, plus leakage over time."""

from collections.abc import Mapping
from dataclasses import dataclass

from nce_sim.config.machine import BufferConfig, Machine
from nce_sim.config.technology import ENDS, End, Technology
from nce_sim.cost.activity import Activity, DomainActivity
from nce_sim.cost.area import (
    BOUNDS,
    HALVES,
    WORD_BITS,
    Area,
    buffer_srams,
    codec_of,
    registers_of_mac,
)
from nce_sim.cost.sram import WORD_BYTES
from nce_sim.protection.schemes import MEMORY_SCHEMES

PJ_PER_MW_US = 1e3
"""One milliwatt for one microsecond, in picojoules."""


@dataclass(frozen=True)
class Energy:
    """Energy of one inference by component.

    `low_pj` and `high_pj` take every figure of the technology table at the end of its range.
    """

    by_component_pj: Mapping[str, float]
    low_pj: float
    high_pj: float

    @property
    def total_pj(self) -> float:
        """Sum of the components."""
        return sum(self.by_component_pj.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {pj / 1e6:.1f}" for name, pj in self.by_component_pj.items())
        return (
            f"{self.total_pj / 1e6:.1f} uJ [{self.low_pj / 1e6:.1f}, "
            f"{self.high_pj / 1e6:.1f}]: {parts}"
        )


def energy(machine: Machine, activity: Activity, area: Area) -> Energy:
    """Return the energy of the inference that `activity` counts, on a machine of that area."""
    nominal, low, high = (_components(machine, activity, area, end) for end in ENDS)
    return Energy(nominal, sum(low.values()), sum(high.values()))


def _components(machine: Machine, activity: Activity, area: Area, end: End) -> dict[str, float]:
    technology, config = machine.technology, machine.config

    parts: dict[str, float] = {}
    leakage_mw = area.logic_mm2 * technology.logic_leakage_mw_per_mm2.at(end)
    for name, domain in config.domains.items():
        done = activity.domains[name]
        parts[f"{name} lanes"] = _lanes_pj(machine, domain.array.scheme, done, end)
        parts[f"{name} buffers"] = _buffers_pj(domain.buffers, technology, done, end)
        parts[f"{name} vector unit"] = done.vector_elements * technology.vector_element_pj.at(end)
        leakage_mw += _buffer_leakage_mw(domain.buffers, technology)
    length_mm = config.bus.length_factor * area.side_mm
    parts["bus"] = activity.bus_bytes * length_mm * technology.bus_pj_per_byte_mm.at(end)
    parts["external memory"] = activity.memory_bytes * technology.memory_pj_per_byte.at(end)
    codec = codec_of(technology, config.memory.protected_scheme)
    if codec is not None:
        parts["external memory"] += activity.memory_words_read * codec.decode_pj.at(end)
        parts["external memory"] += activity.memory_words_written * codec.encode_pj.at(end)
    latency_us = activity.latency_cycles / config.clock_mhz
    background_mw = technology.memory_background_mw.at(end)
    parts["external memory"] += background_mw * latency_us * PJ_PER_MW_US
    parts["controller"] = activity.tiles * technology.controller_tile_pj.at(end)
    parts["controller"] += activity.latency_cycles * technology.controller_cycle_pj.at(end)
    if config.fabric is not None:
        parts["controller"] += activity.switches * config.fabric.switch_pj
    parts["leakage"] = leakage_mw * latency_us * PJ_PER_MW_US
    return parts


def _lanes_pj(machine: Machine, scheme: str, done: DomainActivity, end: End) -> float:
    """Multiply-accumulates with their registers and what checks them, votes, and clipping.

    Each multiply-accumulate reads and writes a 32-bit accumulator and latches two operands.
    """
    technology, number_format = machine.technology, machine.config.number_format
    registers = registers_of_mac(number_format)
    mac_pj = technology.mac[number_format].energy_pj.at(end)
    register_pj = technology.register_32bit_access_pj.at(end)
    vote_pj = technology.voter_32bit_pj.at(end)
    checked = 1.0
    if scheme in technology.lane_overheads:
        checked += technology.lane_overheads[scheme].energy.at(end)
    clip_pj = BOUNDS * technology.comparator_pj.at(end)
    lane_pj = done.lane_macs * (mac_pj + registers * register_pj) * checked
    return lane_pj + done.votes * vote_pj + done.clips * clip_pj


def _buffers_pj(
    buffers: BufferConfig, technology: Technology, done: DomainActivity, end: End
) -> float:
    """Reads and writes of the local buffers, wider words and codecs included."""
    srams = buffer_srams(buffers, technology)
    read = {
        "input": done.input_read_bytes,
        "weight": done.weight_read_bytes,
        "output": done.output_bytes,
        "resident": done.resident_read_bytes,
    }
    written = {
        "input": done.input_written_bytes,
        "weight": done.weight_written_bytes,
        "output": done.output_bytes,
        "resident": done.resident_written_bytes,
    }
    cells = sum(
        read[name] * sram.read_pj_per_byte + written[name] * sram.write_pj_per_byte
        for name, sram in srams.items()
    )
    total = cells * MEMORY_SCHEMES[buffers.scheme].storage_factor(WORD_BITS)
    codec = codec_of(technology, buffers.scheme)
    if codec is not None:
        total += sum(read.values()) / WORD_BYTES * codec.decode_pj.at(end)
        total += sum(written.values()) / WORD_BYTES * codec.encode_pj.at(end)
    return total


def _buffer_leakage_mw(buffers: BufferConfig, technology: Technology) -> float:
    srams = buffer_srams(buffers, technology)
    cells = sum(HALVES[name] * sram.leakage_mw for name, sram in srams.items())
    return cells * MEMORY_SCHEMES[buffers.scheme].storage_factor(WORD_BITS)
