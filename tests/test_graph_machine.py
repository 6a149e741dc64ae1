"""Networks that branch on the machine: added in the vector units, joined where maps lie."""

import numpy as np
import pytest
import torch
from graph_networks import add_after, bottlenecks, captured, joined, residual, settle
from hardware import split_of
from hypothesis import given, settings
from test_capture import networks
from torch import nn

import nce_sim as nce
from nce_sim.config.machine import load_machine
from nce_sim.machine.engine import simulate
from nce_sim.report.counters import buffer_fill
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED
from nce_sim.schedule.layout import EXTERNAL
from nce_sim.schedule.tiles import OUTPUTS
from nce_sim.study.protection_price import cost_curves
from nce_sim.workload.layer import Kind

MACHINE = load_machine("nce-small")


def halves(network, seed=1):
    random = np.random.Generator(np.random.Philox(seed))
    return split_of(
        {layer.name: random.random(layer.out_shape) < 0.5 for layer in network.neuron_layers}
    )


@pytest.mark.parametrize("build", [residual, bottlenecks, joined, add_after])
def test_every_layer_is_computed_once(build):
    network = captured(build())
    run = simulate(network, MACHINE, halves(network))
    works = {work.layer.name: work for work in run.program.layers}
    assert sum(share.elements for work in run.program.layers for share in work.shares) == sum(
        work.layer.outputs for work in run.program.layers
    )
    assert {work.layer.name for work in run.program.layers if work.on_array} == {
        layer.name for layer in network.neuron_layers
    }
    assert sum(found.useful_macs for found in run.counts.domains.values()) == network.macs
    for layer in network.layers:
        assert (f"{layer.name}.add" in works) == layer.closes_block
    assert run.latency_cycles > 0
    assert all(dict(buffer_fill(run, network.layers, domain)) for domain in DOMAINS)


def test_the_addition_belongs_to_the_neurons_domain():
    network = captured(residual())
    split = halves(network)
    run = simulate(network, MACHINE, split)
    works = {work.layer.name: work for work in run.program.layers}
    for layer in network.layers:
        if layer.closes_block:
            addition = works[f"{layer.name}.add"]
            (share,) = addition.on(UNPROTECTED)
            assert np.array_equal(share.mask, split.unprotected[layer.name])
            assert addition.layer.relu
            assert not works[layer.name].layer.relu
            cycles = sum(tile.cycles for name in DOMAINS for tile in addition.tiles(name))
            lanes = MACHINE.config.domains[PROTECTED].vector_lanes
            assert cycles >= 2 * layer.outputs / max(
                lanes, MACHINE.config.domains[UNPROTECTED].vector_lanes
            )


def test_readers_of_a_closed_block_read_its_sum():
    network = captured(residual())
    run = simulate(network, MACHINE, halves(network))
    works = {work.layer.name: work.layer for work in run.program.layers}
    assert works["conv4"].source == "conv3.add"
    assert works["conv6"].source == "conv3.add"
    assert works["conv5.add"].sources == ("conv5", "conv6")


def test_joined_maps_are_not_moved_and_all_their_channels_are_read():
    network = captured(joined())
    run = simulate(network, MACHINE, halves(network))
    works = {work.layer.name: work for work in run.program.layers}
    assert not any(work.layer.kind is Kind.CONCAT for work in run.program.layers)
    for name in ("conv2", "conv3", "pool1"):
        assert all(share.outputs == EXTERNAL for share in works[name].shares), name
    written = {
        name: sum(
            stream.data_bytes
            for domain in DOMAINS
            for tile in works[name].tiles(domain)
            for stream in tile.stores
            if stream.what == OUTPUTS
        )
        for name in ("conv2", "conv3", "pool1")
    }
    sizes = {name: works[name].layer.outputs for name in written}
    assert written == {name: size * run.program.element_bytes for name, size in sizes.items()}
    storage, reader = run.schedule.storage, run.schedule.storage.number["conv4"]
    assert [part.name for part in storage.operands(reader)] == ["conv2", "conv3", "pool1"]


def test_a_joined_map_costs_what_one_map_of_all_its_channels_does():
    """A convolution that reads two joined halves reads what it would of one map."""

    class Half(nn.Module):
        def __init__(self, parts: int) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv2d(2, 8 // parts, 3, padding=1) for _ in range(parts))
            self.last = nn.Conv2d(8, 5, 3)

        def forward(self, inputs):
            maps = [torch.relu(part(inputs)) for part in self.parts]
            return self.last(torch.cat(maps, 1) if len(maps) > 1 else maps[0])

    two, one = (captured(settle(Half(parts), 3)) for parts in (2, 1))
    random = np.random.Generator(np.random.Philox(5))
    first, last = random.random((8, 12, 12)) < 0.5, random.random((5, 10, 10)) < 0.5
    loads = []
    for network, masks in (
        (two, {"conv1": first[:4], "conv2": first[4:], "conv3": last}),
        (one, {"conv1": first, "conv2": last}),
    ):
        run = simulate(network, MACHINE, split_of(masks))
        work = run.program.layers[-1]
        loads.append(
            {name: [sum(s.data_bytes for s in tile.loads) for tile in work.tiles(name)]
             for name in DOMAINS}
        )  # fmt: skip
    assert loads[0] == loads[1]


class Curved(nn.Module):
    """Two layers with the same non-linearity, the second after an addition."""

    def __init__(self, curve):
        super().__init__()
        self.one, self.two = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(2))
        self.curve, self.last = curve, nn.Linear(72, 5)

    def forward(self, inputs):
        first = self.curve(self.one(inputs))
        return self.last(self.curve(self.two(first) + inputs).flatten(1))


@pytest.mark.parametrize(
    ("curve", "elements"),
    [(nn.ReLU(), 0), (nn.ReLU6(), 0), (nn.LeakyReLU(0.1), 1), (nn.SiLU(), 2), (nn.GELU(), 2)],
)
def test_a_curve_costs_the_vector_units_energy_and_no_time(curve, elements):
    """One element for a slope, two for a piece of a table, at each output, in its own domain."""
    flat = captured(settle(Curved(nn.ReLU()), 3), size=6)
    split = halves(flat)
    plain = simulate(flat, MACHINE, split, batch=2)
    run = simulate(captured(settle(Curved(curve), 3), size=6), MACHINE, split, batch=2)
    assert run.latency_cycles == plain.latency_cycles
    for domain in DOMAINS:
        names = [name for name in split.unprotected if name != flat.output.name]
        own = sum(int((split.unprotected[name] == (domain == UNPROTECTED)).sum()) for name in names)
        found, expected = (each.counts.domains[domain] for each in (run, plain))
        assert found.vector_elements - expected.vector_elements == 2 * elements * own
        assert found.input_read_bytes == expected.input_read_bytes
    more = run.energy.total_pj - plain.energy.total_pj
    outputs = sum(layer.outputs for layer in flat.neuron_layers[:2])
    each_pj = MACHINE.technology.vector_element_pj.value
    assert more == pytest.approx(2 * elements * outputs * each_pj, abs=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(2, 4, 3, 2)), "pad1 pads"),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), nn.SiLU()), "of its own"),
        (
            lambda: nn.Sequential(
                nn.Flatten(), nn.Linear(288, 8), nn.Unflatten(1, (8, 1, 1)), nn.Conv2d(8, 5, 1)
            ),
            "flattening only",
        ),
    ],
)
def test_what_the_machine_has_no_unit_for_is_refused(build, message):
    network = captured(settle(build(), 3))
    with pytest.raises(nce.InputError, match=message):
        simulate(network, MACHINE, halves(network))


def test_a_joined_answer_has_no_memories_to_strike():
    class Answer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv2d(2, 3, 3) for _ in range(2))

        def forward(self, inputs):
            return torch.cat([part(inputs) for part in self.parts], 1)

    network = captured(settle(Answer(), 3))
    schedule = simulate(network, MACHINE, halves(network)).schedule
    with pytest.raises(nce.InputError, match="answers with joined maps"):
        _ = schedule.storage


@pytest.mark.parametrize("objective", ["energy", "latency"])
def test_a_closing_convolutions_cost_includes_its_addition(objective):
    network = captured(residual())
    ranking = nce.rank(network, None, None, "random")
    none = simulate(network, MACHINE, ranking.split(1.0))
    if objective == "energy":
        each = dict(none.energy.by_layer_pj)
    else:
        each = {name: end - start for name, (start, end) in none.layer_intervals.items()}
    curves = cost_curves(ranking, network, MACHINE, objective)
    for layer in network.neuron_layers:
        carried = {"conv1": ["pool1"], "conv5": ["conv5.add", "pool2"]}.get(
            layer.name, [f"{layer.name}.add"] if layer.closes_block else []
        )
        expected = sum(each[name] for name in (layer.name, *carried))
        assert curves[layer.name].costs[0] == pytest.approx(expected)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_run_or_are_refused(module):
    network = captured(module)
    if {layer.kind for layer in network.layers} & {Kind.PAD, Kind.ACTIVATION}:
        with pytest.raises(nce.InputError, match="the machine"):
            simulate(network, MACHINE, halves(network))
        return
    run = simulate(network, MACHINE, halves(network))
    found = {work.layer.name: work for work in run.program.layers}
    for layer in network.layers:
        if layer.kind not in (Kind.FLATTEN, Kind.CONCAT):
            assert sum(share.elements for share in found[layer.name].shares) == layer.outputs
    assert sum(each.useful_macs for each in run.counts.domains.values()) == network.macs
