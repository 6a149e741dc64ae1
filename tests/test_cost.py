"""Area and energy: sums of parts, protection's price, units, ranges."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hardware import (
    Chain,
    changed,
    conv,
    examples,
    fused,
    machine,
    max_pool,
    split_of,
    technology,
)
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.config.array_scheme import ArrayScheme
from nce_sim.config.figures import figures_of, with_figure_at
from nce_sim.config.machine import Machine, load_machine
from nce_sim.config.technology import ENDS, Figure
from nce_sim.config.voltage import load_voltage
from nce_sim.cost.actions import actions_of
from nce_sim.cost.activity import Activity, DomainActivity, Moved
from nce_sim.cost.area import area, at_end, lane_area_um2, registers_of_mac
from nce_sim.cost.energy import Energy, component_or_leakage, energy
from nce_sim.cost.peak import CYCLES, peak_activity, peak_tops, power_by_component
from nce_sim.cost.sensitivity import swings, total_pj
from nce_sim.cost.sram import KIB, sram_cost
from nce_sim.cost.supply import leakage_at, supply_of
from nce_sim.machine.engine import simulate
from nce_sim.protection.schemes import ARRAY_SCHEMES, MEMORY_SCHEMES

BUNDLED = [
    "nce-28nm", "nce-fused", "nce-int8", "nce-near-threshold", "nce-small", "os-32x32",
]  # fmt: skip
NAMES = [field.name for field in fields(DomainActivity)]
FREE = (
    "neurons", "overflow_neurons", "useful_macs", "padded_macs", "waves", "repeated_waves",
    "idle_lane_cycles", "busy_lane_cycles", "lane_wakes", "exchanged_bytes", "retried_macs",
    "checksum_adds",
)  # fmt: skip
"""Counts that describe a run, or cost energy on some machines only."""

RECORDS = ("domains", "bus", "memory")
STILL = Moved(0, 0, 0, 0, 0)
IDLE = DomainActivity(**dict.fromkeys(NAMES, 0))
NOTHING = Activity(
    domains={"protected": IDLE, "unprotected": IDLE},
    bus=STILL,
    memory=STILL,
    **{field.name: 0 for field in fields(Activity) if field.name not in RECORDS},
)


def counted(domain: str, **counts: int) -> Activity:
    """Return an inference in which one domain did nothing but this."""
    return replace(NOTHING, domains={**NOTHING.domains, domain: replace(IDLE, **counts)})


def whole(hardware, activity: Activity) -> Energy:
    return energy(hardware, {"layer": activity}, area(hardware))


def cost(hardware, activity: Activity) -> dict[str, float]:
    return dict(whole(hardware, activity).by_component_pj)


@st.composite
def activities(draw):
    def some(record):
        names = [field.name for field in fields(record) if field.name not in RECORDS]
        return {name: draw(st.integers(0, 10**6)) for name in names}

    domains = {}
    for domain in ("protected", "unprotected"):
        done = some(DomainActivity)
        done["retried_macs"] = draw(st.integers(0, done["lane_macs"]))
        domains[domain] = DomainActivity(**done)
    moved = {where: Moved(**some(Moved)) for where in ("bus", "memory")}
    return Activity(domains=domains, **moved, **some(Activity))


@given(activities(), st.sampled_from(BUNDLED))
@examples(30)
def test_energy_is_the_sum_of_its_parts_within_its_range(activity, name):
    hardware = load_machine(name)
    found = whole(hardware, activity)
    for sums in (component_or_leakage, lambda entry: entry.action.name, lambda entry: entry.layer):
        assert sum(found.sums_aj(sums).values()) == found.total_aj, "exactly"
    assert found.total_pj == pytest.approx(sum(found.by_component_pj.values()))
    assert found.low_pj <= found.total_pj * (1 + 1e-9)
    assert found.total_pj <= found.high_pj * (1 + 1e-9)
    assert min(found.by_component_pj.values()) >= 0


@pytest.mark.parametrize("name", BUNDLED)
def test_area_is_the_sum_of_its_parts_within_its_range(name):
    found = area(load_machine(name))
    assert found.total_mm2 == pytest.approx(sum(found.by_component_mm2.values()))
    assert found.low_mm2 < found.total_mm2 < found.high_mm2
    assert found.logic_mm2 < found.total_mm2
    assert found.side_mm**2 == pytest.approx(found.total_mm2)


@given(activities(), st.sampled_from(BUNDLED))
@examples(25)
def test_twice_the_counts_cost_twice_the_energy_component_by_component(activity, name):
    twice = activity + activity
    once_pj = cost(load_machine(name), activity)
    expected = {component: 2 * pj for component, pj in once_pj.items()}
    found = cost(load_machine(name), twice)
    assert found == pytest.approx(expected, abs=1e-5), "every entry is rounded to an attojoule"


def test_an_inference_that_does_nothing_costs_nothing():
    assert set(cost(machine(), NOTHING).values()) == {0.0}


@pytest.mark.parametrize("count", [name for name in NAMES if name not in FREE])
def test_every_count_of_a_domain_has_its_price_in_this_domain_only(count):
    hardware = changed(machine(), protected__array__scheme="tmr", protected__array__clip=True)
    found = cost(hardware, counted("protected", **{count: 1000}))
    paid = {name for name, pj in found.items() if pj > 0}
    assert len(paid) == 1
    assert paid.pop().startswith("protected ")


def test_a_mac_costs_its_multiplier_and_its_registers():
    figures = technology()
    found = cost(machine(), counted("unprotected", lane_macs=10))
    # fp16: two operand halves and a 32-bit accumulator that is read and written
    expected = figures.mac["fp16"].energy_pj.value + 3 * figures.register_32bit_access_pj.value
    assert found["unprotected lanes"] == pytest.approx(10 * expected)


def test_a_byte_on_the_bus_costs_its_way_over_a_length_that_grows_with_the_side():
    hardware, figures = machine(), technology()
    found = cost(hardware, replace(NOTHING, bus=Moved(500, 200, 100, 150, 50)))
    length = 1.5 * area(hardware).total_mm2 ** 0.5
    assert found["bus"] == pytest.approx(1000 * length * figures.bus_pj_per_byte_mm.value)
    assert sum(found.values()) == found["bus"]


def test_leakage_is_milliwatts_times_microseconds():
    """All parts but the logic leak nothing; 1 mW over 1 us is 1000 pJ."""
    leaking = Figure(value=1, low=1, high=1, source="a test")
    silent = leaking.model_copy(update={"value": 0.0})
    sram = technology().sram.model_copy(update={"leakage_factor": silent})
    table = technology().model_copy(
        update={
            "logic_leakage_mw_per_mm2": leaking,
            "controller_cycle_pj": silent,
            "memories": {"lpddr4": memory().model_copy(update={"background_mw": silent})},
            "sram": sram,
        }
    )
    hardware = machine().model_copy(update={"technology": table})
    clock_mhz = hardware.config.clock_mhz
    found = cost(hardware, replace(NOTHING, latency_cycles=int(7 * clock_mhz)))
    codecs = [part for part in area(hardware).parts if part.name == "codecs"]
    logic = area(hardware).logic_mm2 + sum(area(hardware).of(part) for part in codecs)
    assert found["leakage"] == pytest.approx(logic * 7 * 1000)
    assert sum(found.values()) == pytest.approx(found["leakage"])


def memory():
    return technology().memories["lpddr4"]


def test_the_external_memory_draws_its_background_power_all_the_time():
    hardware = machine()
    clock_mhz = hardware.config.clock_mhz
    found = cost(hardware, replace(NOTHING, latency_cycles=int(7 * clock_mhz)))
    background_mw = memory().background_mw.value
    assert found["external memory"] == pytest.approx(background_mw * 7 * 1000)


def test_a_change_of_the_fusing_costs_its_own_energy():
    found = cost(fused(fabric__switch_pj=250), replace(NOTHING, switches=4))
    assert found["controller"] == sum(found.values()) == 1000
    assert sum(cost(machine(), replace(NOTHING, switches=4)).values()) == 0


def test_sram_leaks_with_its_banks_halves_and_check_bits():
    silent = Figure(value=0, low=0, high=0, source="a test")
    table = technology().model_copy(update={"logic_leakage_mw_per_mm2": silent})
    found = {}
    for scheme in ("none", "secded"):
        hardware = changed(machine(), protected__buffers__scheme=scheme)
        hardware = hardware.model_copy(update={"technology": table})
        found[scheme] = cost(hardware, replace(NOTHING, latency_cycles=100))["leakage"]
    plain, wide = (sram_cost(table.sram, 1, bits).leakage_mw for bits in (64, 72))
    # all buffers are one bank of the least size
    assert found["none"] == pytest.approx(14 * plain * 1000)
    assert found["secded"] == pytest.approx((7 * plain + 7 * wide) * 1000)


def lanes_mm2(scheme: str, **changes) -> float:
    hardware = changed(machine(), protected__array__scheme=scheme, **changes)
    return area(hardware).by_component_mm2["protected lanes"]


def test_tmr_lanes_take_three_times_the_area_and_a_voter():
    figures = technology()
    voters = 16 * figures.voter_32bit_area_um2.value * 1e-6 * figures.wiring_factor.value
    assert lanes_mm2("tmr") == pytest.approx(3 * lanes_mm2("none") + voters)


def test_temporal_tmr_adds_registers_and_a_voter_but_no_multiplier():
    figures = technology()
    added = figures.voter_32bit_area_um2.value + 2 * figures.register_32bit_area_um2.value
    expected = lanes_mm2("none") + 16 * added * 1e-6 * figures.wiring_factor.value
    assert lanes_mm2("temporal_tmr") == pytest.approx(expected)


def test_dmr_lanes_take_twice_the_area_and_a_comparator():
    figures = technology()
    comparators = 16 * figures.voter_32bit_area_um2.value * 1e-6 * figures.wiring_factor.value
    assert lanes_mm2("dmr_retry") == pytest.approx(2 * lanes_mm2("none") + comparators)


def test_temporal_dmr_adds_one_register_and_a_comparator_but_no_multiplier():
    figures = technology()
    added = figures.voter_32bit_area_um2.value + figures.register_32bit_area_um2.value
    expected = lanes_mm2("none") + 16 * added * 1e-6 * figures.wiring_factor.value
    assert lanes_mm2("temporal_dmr") == pytest.approx(expected)


@pytest.mark.parametrize("scheme", ["tmr", "dmr_retry"])
def test_the_lanes_of_a_fabric_take_the_same_area_however_they_are_fused(scheme):
    figures, copies = technology(), {"tmr": 3, "dmr_retry": 2}[scheme]
    single = lanes_mm2("none") / 16
    voter = figures.voter_32bit_area_um2.value * 1e-6 * figures.wiring_factor.value
    most = (11 - 1) // copies
    for clusters in range(1, most + 1):
        hardware = fused(fabric__columns=11, fabric__scheme=scheme, fabric__clusters=clusters)
        found = area(hardware).by_component_mm2
        lanes = found["protected lanes"] + found["unprotected lanes"]
        assert lanes == pytest.approx(4 * (11 * single + most * voter))


def test_dmr_and_temporal_dmr_spend_about_twice_the_lanes_energy():
    found, votes = lane_energies("none", "dmr_retry", "temporal_dmr")
    assert found["dmr_retry"] == pytest.approx(2 * found["none"] + votes)
    assert found["temporal_dmr"] == pytest.approx(found["dmr_retry"])


def lane_energies(*schemes):
    """Return the energy of the protected lanes under each scheme, and that of its votes."""
    layers = (conv(inputs=(2, 5, 5), channels=4),)
    split = split_of({"conv1": mask_of(layers[0])})
    found = {
        scheme: simulate(
            Chain(layers), changed(machine(), protected__array__scheme=scheme), split
        ).energy.by_component_pj["protected lanes"]
        for scheme in schemes
    }
    neurons = layers[0].neurons - int(mask_of(layers[0]).sum())
    return found, neurons * technology().voter_32bit_pj.value


def test_tmr_and_temporal_tmr_spend_about_three_times_the_lanes_energy():
    found, votes = lane_energies("none", "ideal", "tmr", "temporal_tmr")
    assert found["ideal"] == found["none"]
    assert found["tmr"] == pytest.approx(3 * found["none"] + votes)
    assert found["temporal_tmr"] == pytest.approx(found["tmr"])


CHECKED = [("parity", "fp16", 3), ("residue", "int8", 2.5), ("hardened", "fp32", 4)]
"""Schemes with a number format, and the registers of its lanes in units of 32 bits."""


@pytest.mark.parametrize(("scheme", "number_format", "registers"), CHECKED)
def test_checks_and_hardened_cells_add_their_share_to_a_lanes_area(
    scheme, number_format, registers
):
    figures, added = technology(), technology().lane_overheads[scheme].area
    hardware = machine(number_format=number_format, protected__array__scheme=scheme)
    found = area(hardware).by_component_mm2
    mac, register = figures.mac[number_format].area_um2, figures.register_32bit_area_um2
    for end in ENDS:
        lane = (1 + added.at(end)) * (mac.at(end) + registers * register.at(end))
        assert lane_area_um2(at_end(hardware, end), "protected") == pytest.approx(lane)
    plain = mac.value + registers * register.value
    wiring = figures.wiring_factor.value
    assert found["unprotected lanes"] == pytest.approx(16 * plain * 1e-6 * wiring)
    expected = found["unprotected lanes"] * (1 + added.value)
    assert found["protected lanes"] == pytest.approx(expected)


@pytest.mark.parametrize(("scheme", "number_format", "registers"), CHECKED)
def test_checks_and_hardened_cells_add_their_share_to_a_macs_energy(
    scheme, number_format, registers
):
    figures = technology()
    hardware = machine(number_format=number_format, protected__array__scheme=scheme)
    found = cost(hardware, counted("protected", lane_macs=10))
    access = figures.register_32bit_access_pj.value
    plain = 10 * (figures.mac[number_format].energy_pj.value + registers * access)
    expected = plain * (1 + figures.lane_overheads[scheme].energy.value)
    assert found["protected lanes"] == pytest.approx(expected)
    other = cost(hardware, counted("unprotected", lane_macs=10))
    assert other["unprotected lanes"] == pytest.approx(plain)


@pytest.mark.parametrize("scheme", ["none", "tmr", "parity"])
def test_clipping_takes_two_comparators_a_lane_whatever_protects_it(scheme):
    comparators = 16 * 2 * technology().comparator_area_um2.value * 1e-6
    expected = lanes_mm2(scheme) + comparators * technology().wiring_factor.value
    assert lanes_mm2(scheme, protected__array__clip=True) == pytest.approx(expected)


def test_an_output_that_is_clipped_costs_two_comparisons():
    found = cost(machine(unprotected__array__clip=True), counted("unprotected", clips=10))
    assert found["unprotected lanes"] == pytest.approx(20 * technology().comparator_pj.value)
    assert sum(found.values()) == found["unprotected lanes"]


@pytest.mark.parametrize("array", ["protected", "unprotected"])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_output_of_an_array_that_clips_is_clipped_once(array, batch):
    layers = (conv(inputs=(2, 6, 6), channels=4), max_pool("pool1", "conv1", (4, 6, 6)))
    split = split_of({"conv1": mask_of(layers[0])})
    plain, clipping = (
        simulate(
            Chain(layers), changed(machine(), **{f"{array}__array__clip": clip}), split, batch=batch
        )
        for clip in (False, True)
    )
    outputs = {"unprotected": int(mask_of(layers[0]).sum())}
    outputs["protected"] = layers[0].neurons - outputs["unprotected"]
    found = {name: done.clips for name, done in clipping.counts.domains.items()}
    assert found == {name: batch * outputs[name] * (name == array) for name in found}
    assert all(done.clips == 0 for done in plain.counts.domains.values())
    assert clipping.latency_cycles == plain.latency_cycles
    lanes = f"{array} lanes"
    added = batch * outputs[array] * 2 * technology().comparator_pj.value
    before = plain.energy.by_component_pj[lanes]
    assert clipping.energy.by_component_pj[lanes] == pytest.approx(before + added)


@pytest.mark.parametrize("scheme", ["parity", "residue", "hardened"])
def test_checks_and_hardened_cells_take_no_time_and_no_votes(scheme):
    layers = (conv(inputs=(2, 6, 6), channels=4),)
    split = split_of({"conv1": mask_of(layers[0])})
    plain, checked = (
        simulate(Chain(layers), machine(number_format="int8", protected__array__scheme=each), split)
        for each in ("none", scheme)
    )
    assert checked.latency_cycles == plain.latency_cycles
    assert checked.counts == plain.counts
    assert checked.counts.domains["protected"].votes == 0


@pytest.mark.parametrize(
    ("scheme", "retries"), [("parity", True), ("residue", True), ("hardened", False)]
)
def test_a_check_runs_a_wave_again_and_pays_for_it(scheme, retries):
    layers = (conv(inputs=(2, 6, 6), channels=4),)
    split = split_of({"conv1": mask_of(layers[0])})
    hardware = machine(number_format="int8", protected__array__scheme=scheme)
    quiet, struck = (
        simulate(Chain(layers), hardware, split, mismatch_rate=rate) for rate in (0.0, 1.0)
    )
    repeated = struck.counts.domains["protected"].repeated_waves
    assert (repeated > 0) == retries
    assert (struck.latency_cycles > quiet.latency_cycles) == retries
    again = (run.energy.by_component_pj["protected lanes"] for run in (quiet, struck))
    before, after = again
    assert after == pytest.approx(before * (2 if retries else 1))


@pytest.mark.parametrize(
    ("scheme", "check", "retries", "factor"),
    [
        ("parity", "parity", True, 1),
        ("residue", "residue", True, 1),
        ("hardened", None, False, 0.1),
    ],
)
def test_checks_need_no_copies(scheme, check, retries, factor):
    found = ARRAY_SCHEMES[scheme]
    assert (found.work_factor, found.votes, found.corrects, found.compares) == (1, 0, 0, 0)
    assert (found.check, found.retries, found.rate_factor) == (check, retries, factor)


def mask_of(layer):
    return (np.arange(layer.outputs) % 3 == 0).reshape(layer.out_shape)


def test_ideal_protection_costs_no_more_than_none():
    layers = (
        conv(inputs=(2, 6, 6), channels=4),
        max_pool("pool1", "conv1", (4, 6, 6)),
    )
    split = split_of({"conv1": mask_of(layers[0])})
    runs = [
        simulate(
            Chain(layers),
            changed(
                machine(), protected__array__scheme=scheme, protected__buffers__scheme=scheme,
                memory__protected_scheme=scheme,
            ),
            split,
        )
        for scheme in ("none", "ideal")
    ]  # fmt: skip
    assert runs[0].latency_cycles == runs[1].latency_cycles
    assert runs[0].energy.by_layer_pj == runs[1].energy.by_layer_pj
    assert runs[0].area == runs[1].area


@pytest.mark.parametrize(
    ("scheme", "bits"), [("none", 0), ("ideal", 0), ("parity", 1), ("secded", 8)]
)
def test_memory_schemes_store_their_check_bits(scheme, bits):
    assert MEMORY_SCHEMES[scheme].check_bits(64) == bits
    assert MEMORY_SCHEMES[scheme].storage_factor() == (64 + bits) / 64


@pytest.mark.parametrize(("data", "check"), [(8, 5), (16, 6), (32, 7), (64, 8), (128, 9)])
def test_secded_needs_the_check_bits_of_hsiaos_table(data, check):
    assert MEMORY_SCHEMES["secded"].check_bits(data) == check


@pytest.mark.parametrize(
    ("scheme", "copies", "repeats"),
    [
        ("none", 1, 1), ("ideal", 1, 1), ("tmr", 3, 1), ("dmr_retry", 2, 1),
        ("temporal_dmr", 1, 2), ("temporal_tmr", 1, 3),
    ],
)  # fmt: skip
def test_array_schemes_multiply_lanes_or_time(scheme, copies, repeats):
    found = ARRAY_SCHEMES[scheme]
    assert (found.copies, found.repeats) == (copies, repeats)
    assert found.work_factor == copies * repeats
    assert found.votes == (copies * repeats > 1)
    assert found.retries == (copies * repeats == 2), "two can differ, but not tell who is right"


@pytest.mark.parametrize(("scheme", "bits"), [("parity", 65), ("secded", 72)])
def test_buffers_grow_by_their_check_bits_and_codecs(scheme, bits):
    plain, protected = (
        area(changed(machine(), protected__buffers__scheme=name)).by_component_mm2
        for name in ("none", scheme)
    )
    codec = getattr(technology(), scheme).area_um2.value * 1e-6 * technology().wiring_factor.value
    wider = (
        sram_cost(technology().sram, 1, bits).area_mm2 / sram_cost(technology().sram, 1).area_mm2
    )
    expected = plain["protected buffers"] * wider + 7 * codec
    assert protected["protected buffers"] == pytest.approx(expected)
    assert 1 < wider < 1.2
    assert protected["unprotected buffers"] == plain["unprotected buffers"]


def test_a_protected_buffer_pays_for_wider_words_and_its_codec():
    plain, protected = (
        cost(
            changed(machine(), protected__buffers__scheme=name),
            counted("protected", input_read_bytes=800),
        )["protected buffers"]
        for name in ("none", "secded")
    )
    decoding = 100 * technology().secded.decode_pj.value
    wide, narrow = (sram_cost(technology().sram, 1, bits).read_pj for bits in (72, 64))
    assert protected == pytest.approx(plain * wide / narrow + decoding)


def test_the_codec_of_the_external_memory_works_on_words_of_its_region():
    activity = replace(NOTHING, memory_words_read=10, memory_words_written=3)
    figures = technology().secded
    found = cost(machine(), activity)["external memory"]
    assert found == pytest.approx(10 * figures.decode_pj.value + 3 * figures.encode_pj.value)
    plain = changed(machine(), memory__protected_scheme="none")
    assert cost(plain, activity)["external memory"] == 0


FIGURES = ("read_pj", "write_pj", "leakage_mw", "area_mm2")


def test_an_empty_buffer_costs_nothing():
    empty = sram_cost(technology().sram, 0)
    assert [getattr(empty, name) for name in FIGURES] == [0, 0, 0, 0]


@given(st.integers(1, 64 * KIB), st.integers(1, 64 * KIB))
@examples(60)
def test_a_larger_bank_never_costs_less(one, other):
    small, large = (sram_cost(technology().sram, size) for size in sorted((one, other)))
    for name in FIGURES:
        assert getattr(small, name) <= getattr(large, name) * (1 + 1e-12)


@given(st.integers(1, 20))
@examples(20)
def test_equal_banks_add_area_and_leakage_and_leave_the_energy_of_a_read(banks):
    one, many = (sram_cost(technology().sram, 64 * KIB * count) for count in (1, banks))
    assert many.area_mm2 == pytest.approx(banks * one.area_mm2)
    assert many.leakage_mw == pytest.approx(banks * one.leakage_mw)
    assert many.read_pj == pytest.approx(one.read_pj)


def test_the_fit_stays_near_the_rows_of_the_table():
    for row in technology().sram.rows:
        found = sram_cost(technology().sram, int(row.capacity_kib * KIB), row.word_bits)
        for figure in FIGURES:
            assert getattr(found, figure) == pytest.approx(getattr(row, figure), rel=0.3)


def test_more_lanes_and_larger_buffers_take_more_area():
    for changes in [
        {"protected__array__rows": 8}, {"unprotected__array__columns": 8},
        {"protected__vector_lanes": 8}, {"unprotected__buffers__resident_bytes": 100_000},
        {"protected__array__macs_per_cycle": 2},
    ]:  # fmt: skip
        assert area(changed(machine(), **changes)).total_mm2 > area(machine()).total_mm2


def test_parity_words_lie_between_the_widths_of_the_table():
    plain, parity, secded = (
        sram_cost(technology().sram, 8 * KIB, bits).area_mm2 for bits in (64, 65, 72)
    )
    assert parity == pytest.approx(plain + (secded - plain) / 8)


def test_other_cells_and_warmth_change_leakage_only():
    idle = replace(NOTHING, latency_cycles=1000)
    plain, busy = cost(machine(), idle), counted("protected", input_read_bytes=80, lane_macs=5)
    table = technology()
    for changes, factor in (
        ({"temperature_k": table.temperature_k + table.leakage.doubling_k.value}, 2),
        ({"temperature_k": table.temperature_k}, 1),
    ):
        hardware = machine(**changes)
        assert cost(hardware, idle)["leakage"] == pytest.approx(factor * plain["leakage"])
        assert cost(hardware, busy) == cost(machine(), busy)
    fast = {f"{domain}__buffers__cell_type": "hp" for domain in ("protected", "unprotected")}
    silent = Figure(value=0, low=0, high=0, source="a test")
    cells_only = table.model_copy(update={"logic_leakage_mw_per_mm2": silent})
    found = [
        cost(hardware.model_copy(update={"technology": cells_only}), idle)["leakage"]
        for hardware in (machine(), machine(**fast))
    ]
    ratio = table.sram.leakage_by_cell_type["hp"].value
    assert found[1] == pytest.approx(ratio * found[0])
    assert cost(machine(**fast), busy) == cost(machine(), busy)


def at_supply(supply_v: float | None) -> Machine:
    hardware = machine(unprotected__supply_v=supply_v, voltage="28nm-near-threshold")
    return hardware.model_copy(update={"voltage": load_voltage("28nm-near-threshold")})


def test_a_lower_supply_costs_its_square_and_the_regulators_loss_in_its_domain():
    table = technology()
    factor = (0.6 / 0.9) ** 2 / table.regulator_efficiency.value
    for count in ("lane_macs", "input_read_bytes", "vector_elements"):
        for domain, expected in (("unprotected", factor), ("protected", 1)):
            nominal, lowered = (
                sum(cost(at_supply(volts), counted(domain, **{count: 100})).values())
                for volts in (None, 0.6)
            )
            assert lowered == pytest.approx(expected * nominal), (count, domain)


def test_a_lower_supply_leaks_less_and_shifts_what_crosses_to_it():
    idle = replace(NOTHING, latency_cycles=1000)
    nominal, lowered = (cost(at_supply(volts), idle)["leakage"] for volts in (None, 0.6))
    assert 0.5 * nominal < lowered < nominal
    exchanged = counted("unprotected", exchanged_bytes=10)
    found = cost(at_supply(0.6), exchanged)
    assert found["unprotected buffers"] == sum(found.values())
    assert found["unprotected buffers"] == pytest.approx(
        10 * technology().level_shifter_pj_per_byte.value
    )
    assert sum(cost(at_supply(None), exchanged).values()) == 0


@given(st.floats(0.5, 1))
@examples(30)
def test_leakage_falls_with_the_voltage_through_the_tables_points(ratio):
    figures = technology().leakage
    found = leakage_at(figures, ratio)
    above = min((row for row in figures.by_voltage if row.ratio >= ratio), key=lambda r: r.ratio)
    below = max((row for row in figures.by_voltage if row.ratio <= ratio), key=lambda r: r.ratio)
    assert below.factor * 0.999 <= found <= above.factor * 1.001


def test_no_leakage_is_known_below_the_tables_points():
    with pytest.raises(ValueError, match="no leakage is known"):
        leakage_at(technology().leakage, 0.1)


def test_gated_lanes_leak_their_share_while_they_have_no_neuron():
    layers = (conv(inputs=(2, 6, 6), channels=4),)
    split = split_of({"conv1": mask_of(layers[0])})
    gates = {f"{domain}__array__power_gating": True for domain in ("protected", "unprotected")}
    plain, gated = (simulate(Chain(layers), machine(**changes), split) for changes in ({}, gates))
    assert gated.latency_cycles == plain.latency_cycles
    figures, clock_mhz = technology().leakage, machine().config.clock_mhz
    lanes_mw = gated.area.by_component_mm2["protected lanes"]
    lanes_mw *= technology().logic_leakage_mw_per_mm2.value
    done = gated.counts.domains["protected"]
    lane_cycles = 16 * gated.latency_cycles
    busy = done.busy_lane_cycles / lane_cycles
    expected = lanes_mw * (busy + (1 - busy) * figures.gated_share.value)
    found = sum(
        entry.energy_aj for entry in gated.energy.entries
        if entry.action.label == "protected lanes" and entry.action.is_leakage
    )  # fmt: skip
    assert found / 1e6 == pytest.approx(expected * gated.latency_cycles / clock_mhz * 1000)
    waking = done.lane_wakes * figures.wake_pj.value
    assert 0 < done.lane_wakes <= done.waves * 16
    before = plain.energy.by_component_pj["protected lanes"]
    assert gated.energy.by_component_pj["protected lanes"] == pytest.approx(before + waking)
    added = gated.area.by_component_mm2["protected lanes"]
    assert added == pytest.approx(
        plain.area.by_component_mm2["protected lanes"] * (1 + figures.gating_area_share.value)
    )


def test_lane_cycles_are_busy_or_idle_while_the_array_computes():
    layers = (
        conv(inputs=(2, 6, 6), channels=4),
        max_pool("pool1", "conv1", (4, 6, 6)),
        conv("conv2", "pool1", inputs=(4, 3, 3), channels=5),
    )
    split = split_of({each.name: mask_of(each) for each in layers if each.has_neurons})
    run = simulate(Chain(layers), machine(), split)
    for domain, done in run.counts.domains.items():
        computing = sum(cycles[domain] for cycles in run.compute_cycles_by_layer.values())
        assert done.busy_lane_cycles + done.idle_lane_cycles == 16 * computing


def test_layers_add_up_to_the_run():
    layers = (
        conv(inputs=(2, 6, 6), channels=4),
        max_pool("pool1", "conv1", (4, 6, 6)),
        conv("conv2", "pool1", inputs=(4, 3, 3), channels=5),
    )
    split = split_of({each.name: mask_of(each) for each in layers if each.has_neurons})
    run = simulate(Chain(layers), machine(), split, batch=2)
    energy_aj = run.energy.sums_aj(lambda entry: entry.layer)
    assert list(energy_aj) == [each.name for each in layers]
    assert sum(energy_aj.values()) == run.energy.total_aj
    assert run.counts.latency_cycles == run.latency_cycles
    assert run.counts.images == 2
    assert run.power_mw * run.latency_us * 1000 == pytest.approx(run.energy.total_pj)
    assert run.chip_power_mw < run.power_mw
    assert run.energy_delay_pj_us == pytest.approx(run.energy.total_pj / 2 * run.latency_us)
    macs = sum(each.macs for each in layers if each.has_neurons) * 2
    assert run.tops * 1e6 * run.latency_us == pytest.approx(2 * macs)
    assert run.tops_per_watt == pytest.approx(2 * macs / run.energy.total_pj)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_action_and_part_names_figures_of_its_table(name):
    hardware = load_machine(name)
    known = figures_of(hardware.technology)
    chip = area(hardware)
    for each in (*chip.parts, *actions_of(hardware, chip)):
        assert set(each.figures) <= set(known), each.name
        assert each.formula


HAND = {
    "none": (12_123.648, 0.0998016),
    "tmr": (36_387.328, 0.3028608),
    "temporal_tmr": (36_387.328, 0.1120896),
    "dmr_retry": (24_263.680, 0.2030592),
    "parity": (12_851.06688, 0.105789696),
}
"""Energy (pJ) and area (mm2) of the protected lanes, as docs/cost.md derives them by hand."""


@pytest.mark.parametrize("scheme", HAND)
def test_protection_costs_what_the_hand_calculation_says(scheme):
    layers = (conv(inputs=(3, 8, 8), channels=4),)
    split = split_of({"conv1": np.zeros(layers[0].out_shape, bool)})
    hardware = changed(load_machine("nce-small"), protected__array__scheme=scheme)
    run = simulate(Chain(layers), hardware, split)
    energy_pj, area_mm2 = HAND[scheme]
    assert run.energy.by_component_pj["protected lanes"] == pytest.approx(energy_pj, abs=1e-6)
    assert run.area.by_component_mm2["protected lanes"] == pytest.approx(area_mm2, rel=1e-9)
    computing = 768 if scheme == "temporal_tmr" else 256
    assert run.compute_cycles_by_layer["conv1"]["protected"] == computing
    decoded = next(e for e in run.energy.entries if e.action.name == "decode secded")
    assert decoded.times >= 432
    text = (Path(__file__).parent.parent / "docs" / "cost.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| {scheme} |"))
    assert f"= {energy_pj:,.3f} |" in row or f"= {energy_pj:,.5f} |" in row
    assert f"= {area_mm2:g} |" in row or f"= {area_mm2:.9g} |" in row


def test_ranges_take_what_makes_a_machine_cheaper_the_other_way_round():
    warm = machine(temperature_k=350.0)
    idle = replace(NOTHING, latency_cycles=10**6)
    found = whole(warm, idle)
    assert found.low_pj < found.total_pj < found.high_pj
    ends = [
        whole(warm.model_copy(update={"technology": with_figure_at(
            warm.technology, "leakage.doubling_k", end)}), idle).total_pj
        for end in ("low", "high")
    ]  # fmt: skip
    assert ends[0] > found.total_pj > ends[1], "leakage that doubles sooner costs more"
    assert found.low_pj < ends[1]
    assert found.high_pj > ends[0]


def test_a_tornado_moves_one_figure_at_a_time():
    hardware = machine()
    done = counted("protected", lane_macs=1000)

    def answer(changed_machine):
        return total_pj(changed_machine, done)

    found = {swing.figure: swing for swing in swings(hardware, answer)}
    assert set(found) == {"mac.fp16.energy_pj", "register_32bit_access_pj"}
    figure = technology().mac["fp16"].energy_pj
    moved = found["mac.fp16.energy_pj"]
    nominal = answer(hardware)
    assert moved.at_low == pytest.approx(nominal + 1000 * (figure.low - figure.value))
    assert moved.at_high == pytest.approx(nominal + 1000 * (figure.high - figure.value))
    widths = [swing.width for swing in swings(hardware, answer)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("name", BUNDLED)
def test_peak_power_is_that_of_lanes_and_ports_at_work(name):
    hardware = load_machine(name)
    chip = area(hardware)
    power = power_by_component(hardware, chip)
    config, figures = hardware.config, hardware.technology
    array = config.arrays["unprotected"]
    access = registers_of_mac(config.number_format) * figures.register_32bit_access_pj.value
    step = figures.mac[config.number_format].energy_pj.value + access
    step *= supply_of(hardware, "unprotected").dynamic
    expected_mw = array.lanes * array.macs_per_cycle * step * config.clock_mhz * 1e-3
    assert power["unprotected lanes"].peak_dynamic_mw == pytest.approx(expected_mw)
    twice = peak_activity(hardware, 6 * CYCLES)
    assert twice == peak_activity(hardware, 3 * CYCLES) + peak_activity(hardware, 3 * CYCLES)
    macs = sum(
        each.lanes * each.macs_per_cycle / ARRAY_SCHEMES[each.scheme].repeats
        for each in config.arrays.values()
    )
    assert peak_tops(hardware) == pytest.approx(2 * macs * config.clock_mhz * 1e-6)


def test_a_checksum_row_costs_its_lanes_adders_and_additions():
    figures = technology()
    hardware = machine(number_format="int8", protected__array__scheme="abft")
    plain = machine(number_format="int8")
    mac, register = figures.mac["int8"], figures.register_32bit_area_um2.value
    array = hardware.config.protected.array
    lane_um2 = mac.area_um2.value + 2.5 * register
    adders = array.rows - 1 + 2 * array.columns
    added_um2 = array.columns * lane_um2 + adders * figures.adder_32bit_area_um2.value
    added = (
        area(hardware).by_component_mm2["protected lanes"]
        - area(plain).by_component_mm2["protected lanes"]
    )
    assert added == pytest.approx(added_um2 * 1e-6 * figures.wiring_factor.value)
    found = cost(hardware, counted("protected", checksum_adds=1000))
    assert found["protected lanes"] == pytest.approx(1000 * figures.adder_32bit_pj.value)
    assert sum(cost(plain, counted("protected", checksum_adds=1000)).values()) == 0


def test_a_scheme_of_ones_own_costs_its_shares_with_their_range():
    share = Figure(value=0.2, low=0.1, high=0.5, source="a test")
    scheme = ArrayScheme(name="mine", detects=0.5, energy_share=share, area_share=share)
    hardware = machine().with_scheme("protected", scheme)
    plain_lane, lane = (lane_area_um2(each, "protected") for each in (machine(), hardware))
    assert lane == pytest.approx(1.2 * plain_lane)
    done = counted("protected", lane_macs=1000)
    before, found = (whole(each, done) for each in (machine(), hardware))
    assert found.total_pj == pytest.approx(1.2 * before.total_pj)
    assert found.low_pj == pytest.approx(1.1 * before.low_pj)
    assert found.high_pj == pytest.approx(1.5 * before.high_pj)
    assert any(action.formula.endswith("energy_share of scheme mine)") for action in found.actions)


def test_what_exists_twice_takes_twice_the_area():
    once = machine()
    twice = changed(once, protected__array__rows=2 * once.config.protected.array.rows)
    twice = changed(twice, protected__vector_lanes=2 * once.config.protected.vector_lanes)
    before, after = (area(each).by_component_mm2 for each in (once, twice))
    for component in ("protected lanes", "protected vector unit"):
        assert after[component] == pytest.approx(2 * before[component])
    for component in ("unprotected lanes", "protected buffers", "controller"):
        assert after[component] == before[component]
    chip = area(once)
    double = replace(chip, parts=chip.parts + chip.parts)
    assert double.total_mm2 == pytest.approx(2 * chip.total_mm2)


def test_time_without_activity_costs_leakage_and_what_runs_all_the_time():
    hardware = load_machine("nce-28nm")
    found = whole(hardware, replace(NOTHING, latency_cycles=10**6))
    spent = {entry.action.name for entry in found.entries if entry.energy_aj}
    always = {"stand by and refresh", "run"}  # of the memory, and of the controller
    assert spent - always == {"leak", "leak in codecs"}
