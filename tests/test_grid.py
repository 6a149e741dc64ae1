"""A grid of splits: what each costs under conditions, and what changing between two takes."""

from fractions import Fraction
from math import ceil

import pytest
from hardware import Chain, conv, examples, linear, machine, random_masks, split_of
from hypothesis import given
from hypothesis import strategies as st
from runtime_parts import FRACTIONS, NETWORK, Ranked, fused_grid, small_grid

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import MachineConfig
from nce_sim.errors import InputError
from nce_sim.machine.engine import Run, simulate
from nce_sim.runtime.grid import build_grid
from nce_sim.runtime.metering import Meter
from nce_sim.runtime.transitions import transition

LAYERS = (
    conv("one", inputs=(2, 5, 5), channels=5, bias=True),
    conv("two", "one", inputs=(5, 5, 5), channels=6, kernel=(1, 1), padding=(0, 0)),
    linear("three", "two", 150, 9),
)


def stored(data_bytes: int, protected: bool) -> int:
    """Bytes that a segment takes in memory: 9 for 8 in the protected region, bursts of 16."""
    return ceil(ceil(data_bytes * 9 / 8 if protected else data_bytes) / 16) * 16


def slow_weight_bytes(before: Run, after: Run) -> dict[str, int]:
    """Return the bytes read from and written to both regions, channel by channel."""
    found = dict.fromkeys(("read", "written", "protected read", "protected written"), 0)
    for old, new in zip(before.program.layers, after.program.layers, strict=True):
        layer = new.layer
        data = layer.reduction_length * 2 + 4 * layer.bias
        masks = [
            next(s for s in work.shares if s.domain == "unprotected").mask for work in (old, new)
        ]
        for channel in range(layer.channels):
            was, becomes = (mask.reshape(layer.channels, -1)[channel] for mask in masks)
            if becomes.any() and not was.any():  # from the protected to the unprotected region
                found["protected read"] += stored(data, True)
                found["written"] += stored(data, False)
            if not becomes.all() and was.all():
                found["read"] += stored(data, False)
                found["protected written"] += stored(data, True)
    return found


@given(st.integers(0, 2**16), st.integers(0, 2**16))
@examples(25)
def test_a_change_moves_the_map_and_the_weights_that_a_region_lacks(first, second):
    hardware, network = machine(), Chain(LAYERS)
    runs = [
        simulate(network, hardware, split_of(random_masks(LAYERS, seed)))
        for seed in (first, second)
    ]
    found = transition(*runs, Meter(hardware))
    maps = sum(stored(ceil(layer.neurons / 8), True) for layer in LAYERS)
    weights = slow_weight_bytes(*runs)
    moved = maps + sum(weights.values())
    assert (found.map_bytes, found.weight_bytes) == (maps, moved - maps)
    # The memory has 6.4 bytes a cycle, less than the bus.
    assert found.cycles == ceil(Fraction(moved) / Fraction("6.4")) + 10 + 7
    assert found.switches == 0
    rates = Meter(hardware).rates()
    pj = {(each.component, each.name): each.energy_pj for each in rates.actions}
    expected = moved * (pj["bus", "move weights"] + pj["external memory", "move weights"])
    expected += (maps + weights["protected read"]) // 9 * pj["external memory", "decode secded"]
    expected += weights["protected written"] // 9 * pj["external memory", "encode secded"]
    expected += found.cycles * rates.idle_aj_per_cycle / 1e6
    assert found.energy_aj / 1e6 == pytest.approx(expected, rel=1e-6)


def test_protected_only_weights_are_not_copied():
    grid = build_grid(NETWORK, machine(weights="protected_only"), Ranked(), FRACTIONS)
    assert {change.weight_bytes for change in grid.transitions.values()} == {0}
    assert all(change.map_bytes > 0 for change in grid.transitions.values())
    copied = build_grid(NETWORK, machine(), Ranked(), FRACTIONS).transitions[0, 2]
    assert copied.cycles > grid.transitions[0, 2].cycles
    assert copied.energy_aj > grid.transitions[0, 2].energy_aj


def test_the_weights_of_neurons_that_overflow_stay_in_their_region():
    plain, overflowing = (
        build_grid(
            NETWORK, machine(overflow=overflow, protected__array__columns=12), Ranked(), FRACTIONS
        )
        for overflow in (False, True)
    )
    arrays = {
        (share.array, share.domain)
        for work in overflowing.points[2].run.program.layers
        for share in work.shares
    }
    assert ("protected", "unprotected") in arrays
    for pair, change in plain.transitions.items():
        assert change.weight_bytes == overflowing.transitions[pair].weight_bytes


def test_a_fabric_fuses_anew_where_its_clusters_differ():
    grid = fused_grid()
    columns = [
        (p.run.program.layers[0].arrays["protected"].columns,
         p.run.program.layers[-1].arrays["protected"].columns)
        for p in grid.points
    ]  # fmt: skip
    found = {}
    for (before, after), change in grid.transitions.items():
        assert change.switches == (columns[before][1] != columns[after][0])
        bytes_moved = change.map_bytes + change.weight_bytes
        assert change.cycles == ceil(bytes_moved / 6.4) + 17 + 5 * change.switches
        found[change.switches] = change
    assert set(found) == {0, 1}
    actions = {a.name: a for a in grid.meter.rates().actions}
    assert actions["fuse anew"].count(found[1].activity) == 1
    assert actions["fuse anew"].count(found[0].activity) == 0


def test_the_energy_of_a_point_is_that_of_its_run():
    for point in small_grid().points:
        assert point.energy_aj() == point.run.energy.total_aj
        assert point.cycles == point.run.latency_cycles
    energies = [point.energy_aj() for point in small_grid().points]
    assert energies == sorted(energies, reverse=True)


@pytest.mark.parametrize(("temperature_c", "supply_v"), [(60.0, 0.7), (90.0, 0.9), (40.0, None)])
def test_the_energy_under_conditions_is_that_of_a_machine_so_configured(temperature_c, supply_v):
    grid = small_grid()
    base = grid.points[0].run.machine
    content = base.config.model_dump()
    content["temperature_k"] = temperature_c + 273.15
    content["unprotected"]["supply_v"] = supply_v
    configured = Machine(
        config=MachineConfig.model_validate(content),
        technology=base.technology,
        voltage=base.voltage,
    )
    for point in grid.points:
        run = simulate(NETWORK, configured, point.split)
        assert point.energy_aj(temperature_c, supply_v) == run.energy.total_aj
        assert run.latency_cycles == point.cycles


def test_extra_cycles_leak_as_the_conditions_have_it():
    point = small_grid().points[1]
    idle, warm = (small_grid().meter.rates(t).idle_aj_per_cycle for t in (None, 90.0))
    assert warm > idle
    plain = point.energy_aj(extra_cycles=100, extra_energy_aj=100 * idle)
    assert plain == point.energy_aj() + 100 * idle
    hot = point.energy_aj(90.0, extra_cycles=100, extra_energy_aj=100 * idle)
    assert hot == point.energy_aj(90.0) + 100 * warm


def test_idle_power_is_what_the_run_spends_over_time_whatever_it_does():
    run = small_grid().points[1].run
    over_time = sum(
        entry.energy_aj for entry in run.energy.entries if entry.action.unit in ("us", "cycle")
    )
    found = small_grid().meter.rates().idle_aj_per_cycle * run.latency_cycles
    assert found == pytest.approx(over_time, rel=1e-5)
    assert small_grid().meter.power_mw(over_time, run.latency_cycles) == pytest.approx(
        over_time / 1e6 / run.latency_us / 1e3
    )


def test_conditions_are_worked_out_once():
    grid = small_grid()
    assert grid.meter.rates(70.0, 0.8) is grid.points[2].meter.rates(70.0, 0.8)
    assert grid.change_aj(1, 1) == grid.change_cycles(1, 1) == 0
    assert grid.change_aj(0, 1) == grid.transitions[0, 1].energy_aj
    assert grid.change_aj(0, 1, 90.0) > grid.change_aj(0, 1)


@pytest.mark.parametrize(
    ("temperature_c", "supply_v", "message"),
    [(200.0, None, "allows 300 to 400 K"), (None, 0.1, "unprotected.supply_v is 0.1")],
)
def test_conditions_beyond_the_tables_are_refused(temperature_c, supply_v, message):
    with pytest.raises(InputError, match=f"machine 'test' under other conditions: .*{message}"):
        small_grid().points[0].energy_aj(temperature_c, supply_v)


def test_a_supply_needs_a_table_of_its_faults_unless_it_is_nominal():
    meter = Meter(machine())
    assert meter.rates(supply_v=0.9).idle_aj_per_cycle == meter.rates().idle_aj_per_cycle
    with pytest.raises(InputError, match="name the table of its fault rates"):
        meter.rates(supply_v=0.7)


def test_grids_without_fractions_or_with_equal_splits_are_refused():
    with pytest.raises(InputError, match="at least one unprotected fraction"):
        build_grid(NETWORK, machine(), Ranked(), ())
    with pytest.raises(InputError, match=r"0\.5 and 0\.5001 give the same split"):
        build_grid(NETWORK, machine(), Ranked(), (0.5001, 0.5))
