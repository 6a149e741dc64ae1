"""What the memories hold when, on random runs, against what a neuron reads and when it runs."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
from hardware import (
    Chain,
    conv,
    dense,
    kept,
    machine,
    patient,
    runs,
    slow_inputs,
    split_of,
)  # fmt: skip
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.machine.engine import Run, simulate
from nce_sim.machine.probe import COMPUTE
from nce_sim.machine.storage import INPUT_WORDS, WEIGHT_WORDS, WHOLE_RUN, Held, Holding
from nce_sim.machine.transfers import Transfer
from nce_sim.schedule.domains import DOMAINS, PROTECTED
from nce_sim.schedule.layout import EXTERNAL, RESIDENT
from nce_sim.workload.layer import INPUT

EXAMPLES = 20


def times(run: Run, resource: str, what: str, layer: str) -> dict[int, tuple[int, int]]:
    """When each tile of a layer was loaded, computed or stored, read from the timeline."""
    return {
        span.tile: (span.start_cycle, span.end_cycle)
        for span in run.timeline
        if span.resource == resource and span.what == what and span.layer == layer
    }


def double_buffers(run: Run, domain: str) -> list[tuple[list[Holding], int]]:
    storage, buffers = run.schedule.storage, run.machine.config.domains[domain].buffers
    return [
        (storage.weight_buffers[domain], buffers.weight_bytes),
        (storage.input_buffers[domain], buffers.input_bytes),
        (storage.output_buffers[domain], buffers.output_bytes),
    ]


def some(count: int, most: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(count)[:most].tolist()


@given(runs(single=True))
@patient(EXAMPLES)
def test_halves_of_double_buffers_hold_one_thing_at_a_time_that_fits(run):
    storage = run.schedule.storage
    for domain in DOMAINS:
        for holdings, size in double_buffers(run, domain):
            by_half = defaultdict(list)
            for each in holdings:
                assert each.domain == domain
                assert each.start <= each.end <= run.latency_cycles
                assert each.base in (0, 8 * size)
                assert len(each.pieces) == 1
                assert each.length * storage.width <= 8 * size
                places = storage.places_of(each)
                assert len(places) == each.length == len(set(places.tolist()))
                by_half[each.base].append(each)
            for half in by_half.values():
                for before, after in pairwise(sorted(half, key=lambda each: each.start)):
                    assert before.end <= after.start


@given(runs(single=True))
@patient(EXAMPLES)
def test_every_tile_computes_on_one_holding_of_each_kind_that_came_before(run):
    storage = run.schedule.storage
    for domain in DOMAINS:
        for place, work in enumerate(run.program.layers):
            tiles = work.tiles(domain)
            computed = {
                name: times(run, f"{domain} {name}", COMPUTE, work.layer.name)
                for name in ("array", "vector unit")
            }["array" if work.on_array else "vector unit"]
            kinds = [("inputs", storage.input_buffers), ("weights", storage.weight_buffers)]
            for what, held in kinds:
                mine = [each for each in held[domain] if each.work == place]
                if not work.on_array or (what == "weights" and not work.layer.weights):
                    assert not mine
                    continue
                groups = kept(tiles, what) if tiles else []
                assert len(mine) == len(groups)
                first = 0
                for each, group in zip(mine, groups, strict=True):
                    assert each.tiles == (first, first + len(group) - 1)
                    assert each.start <= computed[first][0]
                    assert each.end == computed[each.tiles[1]][1]
                    loads = times(run, f"{domain} load", "load", work.layer.name)
                    if first in loads:
                        assert each.start == loads[first][1]
                    first += len(group)
                assert first == len(tiles)


@given(runs(single=True), st.integers(0, 2**32))
@patient(EXAMPLES)
def test_operands_of_neurons_lie_in_the_holdings_of_their_tiles_as_their_lanes_run(run, seed):
    storage = run.schedule.storage
    for place, work in enumerate(run.program.layers):
        if not work.on_array:
            continue
        reading = storage.reading(place)
        length, layer = work.layer.reduction_length, work.layer
        for neuron in some(layer.neurons, 6, seed):
            domain = DOMAINS[reading.array[neuron]]
            tiles = work.tiles(domain)
            first, last = int(reading.first_tile[neuron]), int(reading.last_tile[neuron])
            ranges = [tiles[number].reduction for number in range(first, last + 1)]
            assert ranges[0][0] == 0
            assert ranges[-1][1] == length
            assert all(before[1] == after[0] for before, after in pairwise(ranges))
            channel = neuron // layer.positions
            for number in range(first, last + 1):
                start, stop = tiles[number].reduction
                begin, end = times(run, f"{domain} array", COMPUTE, layer.name)[number]
                if number == last:
                    assert begin <= reading.start[neuron] < reading.end[neuron] <= end
                inputs = {
                    int(np.ravel_multi_index(each, layer.in_shape))
                    for each in slow_inputs(layer, neuron, (start, stop))
                }
                weights = {channel * length + step for step in range(start, stop)}
                for held, wanted in (
                    (storage.input_buffers, inputs),
                    (storage.weight_buffers, weights if layer.weights else set()),
                ):
                    if not wanted:
                        continue
                    (holding,) = [
                        each for each in held[domain]
                        if each.work == place and each.tiles[0] <= number <= each.tiles[1]
                    ]  # fmt: skip
                    assert holding.start <= begin
                    assert end <= holding.end
                    assert wanted <= set(storage.places_of(holding).tolist())


@given(runs(single=True))
@patient(EXAMPLES)
def test_inputs_held_are_exactly_those_that_the_tiles_of_a_holding_read(run):
    storage = run.schedule.storage
    for domain in DOMAINS:
        for holding in storage.input_buffers[domain]:
            work = run.program.layers[holding.work]
            reading, tiles = storage.reading(holding.work), work.tiles(domain)
            wanted = set()
            for number in range(holding.tiles[0], holding.tiles[1] + 1):
                mine = (reading.array == DOMAINS.index(domain)) & (
                    (reading.first_tile <= number) & (number <= reading.last_tile)
                )
                for neuron in np.flatnonzero(mine).tolist():
                    wanted |= slow_inputs(work.layer, neuron, tiles[number].reduction)
            places = {
                int(np.ravel_multi_index(each, work.layer.in_shape)) for each in wanted
            }  # fmt: skip
            assert set(storage.places_of(holding).tolist()) == places


@given(runs(single=True))
@patient(EXAMPLES)
def test_outputs_held_partition_the_neurons_and_are_those_of_the_tile(run):
    storage = run.schedule.storage
    for place, work in enumerate(run.program.layers):
        if not work.on_array:
            continue
        found = []
        for domain in DOMAINS:
            tiles = work.tiles(domain)
            for holding in storage.output_buffers[domain]:
                if holding.work != place:
                    continue
                neurons = storage.places_of(holding)
                number = holding.tiles[0]
                assert len(neurons) == tiles[number].neurons > 0
                stored = times(run, f"{domain} store", "store", work.layer.name)
                computed = times(run, f"{domain} array", COMPUTE, work.layer.name)[number]
                assert holding.start == computed[0]
                assert holding.end == stored.get(number, computed)[1]
                written = storage.written(holding)
                assert (written > holding.start).all()
                assert (written <= holding.end).all()
                found += neurons.tolist()
        assert sorted(found) == list(range(work.layer.neurons))


@given(runs(single=True))
@patient(EXAMPLES)
def test_maps_hold_their_domains_outputs_in_bits_of_their_own_until_they_are_read(run):
    storage, program = run.schedule.storage, run.program
    for domain in DOMAINS:
        capacity = 8 * run.machine.config.domains[domain].buffers.resident_bytes
        for where, held in ((RESIDENT, storage.resident), (EXTERNAL, storage.memory)):
            maps = [each for each in held[domain] if each.words == "outputs"]
            expected = []
            for place, work in enumerate(program.layers):
                mine = [s for s in work.shares if s.domain == domain and s.outputs == where]
                if sum(share.elements for share in mine):
                    expected.append(place)
            assert [each.work for each in maps] == expected
            for each in maps:
                work = program.layers[each.work]
                marks = np.logical_or.reduce(
                    [share.mask.reshape(-1) for share in work.shares if share.domain == domain]
                )
                assert storage.places_of(each).tolist() == np.flatnonzero(marks).tolist()
                assert each.length == marks.sum()
                stored = storage.stored(each.work)[storage.places_of(each)]
                assert (each.start < stored).all()
                for reader in range(len(program.layers)):
                    sources = program.layers[reader].layer.sources
                    names = {program.flattened.get(name, name) for name in sources}
                    if work.layer.name in names:
                        spans = [s for s in run.timeline if s.tile >= 0]
                        name = program.layers[reader].layer.name
                        ends = [s.end_cycle for s in spans if s.layer == name]
                        assert max(ends) <= each.end
                        assert (stored <= storage.start_of(reader)).all()
            everything = held[domain] if where == EXTERNAL else maps
            taken = [
                (each, base, base + words * storage.width)
                for each in everything
                for base, words in each.pieces
            ]
            for number, (left, low, high) in enumerate(taken):
                assert where == EXTERNAL or high <= capacity
                for right, base, top in taken[:number]:
                    together = left.start < right.end and right.start < left.end
                    assert not together or top <= low or high <= base


@given(runs(single=True))
@patient(EXAMPLES)
def test_weights_lie_once_in_each_region_whose_neurons_use_them(run):
    storage = run.schedule.storage
    once = run.machine.config.weights == "protected_only"
    for domain in DOMAINS:
        held = {e.work: e for e in storage.memory[domain] if e.words == WEIGHT_WORDS}
        for place, work in enumerate(run.program.layers):
            layer = work.layer
            marks = storage.stored_by(work, domain).reshape(layer.channels, -1).any(axis=1)
            if once:
                marks = np.full_like(marks, domain == PROTECTED)
            if not layer.weights or not marks.any():
                assert place not in held
                continue
            length = layer.reduction_length
            every = np.arange(layer.weights).reshape(layer.channels, length)
            assert storage.places_of(held[place]).tolist() == every[marks].ravel().tolist()
            assert (held[place].start, held[place].end) == (0, WHOLE_RUN)
        assert all(
            each.base >= storage.weights_end(domain)
            for each in storage.memory[domain]
            if each.words != WEIGHT_WORDS
        )


@given(runs(single=True))
@patient(EXAMPLES)
def test_reading_agrees_with_the_lookup(run):
    storage = run.schedule.storage
    for place, work in enumerate(run.program.layers):
        if not work.on_array:
            continue
        reading = storage.reading(place)
        for neuron in range(work.layer.neurons):
            slot = run.schedule.slot_of(work.layer.name, neuron)
            assert DOMAINS[reading.array[neuron]] == slot.array
            assert reading.end[neuron] == slot.end_cycle
            first, last = reading.first_tile[neuron], reading.last_tile[neuron]
            computed = times(run, f"{slot.array} array", COMPUTE, work.layer.name)
            if first == last:
                assert reading.start[neuron] == slot.start_cycle
            else:
                assert slot.start_cycle == computed[first][0]
                assert reading.start[neuron] == computed[last][0]
            assert computed[last][0] <= reading.start[neuron] < computed[last][1]
            assert DOMAINS.index(slot.domain) == int(storage.stored_by(work, DOMAINS[1])[neuron])


@given(runs(single=True), st.integers(0, 2**32))
@patient(EXAMPLES)
def test_users_of_a_word_are_the_neurons_that_read_it(run, seed):
    storage = run.schedule.storage
    for place, work in enumerate(run.program.layers):
        layer = work.layer
        if layer.kind == "add":
            continue
        read = defaultdict(set)
        for neuron in range(layer.outputs):
            for each in slow_inputs(layer, neuron):
                read[int(np.ravel_multi_index(each, layer.in_shape))].add(neuron)
        for word in some(int(np.prod(layer.in_shape)), 8, seed):
            neurons, steps = storage.users(place, INPUT_WORDS, word)
            assert neurons.tolist() == sorted(read[word])
            for neuron, step in zip(neurons.tolist(), steps.tolist(), strict=True):
                index = tuple(int(i) for i in np.unravel_index(word, layer.in_shape))
                assert index in slow_inputs(layer, neuron, (step, step + 1))
        for word in some(layer.weights, 4, seed):
            neurons, steps = storage.users(place, WEIGHT_WORDS, word)
            channel, step = divmod(word, layer.reduction_length)
            assert set(neurons // layer.positions) == {channel}
            assert len(neurons) == layer.positions
            assert set(steps) == {step}


@given(runs(single=True), st.integers(0, 2**32))
@patient(EXAMPLES)
def test_the_bus_carries_words_of_the_tile_that_is_transferred_and_reaches_all(run, seed):
    storage, transfers = run.schedule.storage, run.schedule.transfers
    bus = [span for span in run.timeline if span.resource == "bus"]
    moves = [span for span in run.timeline if span.what in ("load", "store") and span.tile >= 0]
    for number in some(len(moves), 4, seed):
        span = moves[number]
        if span.cycles > 400:
            continue
        domain, place = span.resource.split(" ")[0], storage.number[span.layer]
        found = []
        for cycle in range(span.start_cycle, span.end_cycle):
            transfer = transfers.under_way(cycle)
            if transfer is None or transfer.span != span:
                continue
            assert transfer.domain == domain
            served = [s.what for s in bus if s.start_cycle <= cycle < s.end_cycle]
            assert span.resource in served[0].split(" + ")
            found.append((transfer.passed, transfer.cycles))
        tile = run.program.layers[place].tiles(domain)[span.tile]
        streams = tile.loads if span.what == "load" else tile.stores
        crossing = [each for each in streams if each.external or each.domain != domain]
        # Each cycle of the transfer comes once, and in order.
        total = found[0][1] if found else 0
        assert found == [(passed, total) for passed in range(total)]
        assert bool(total) == bool(crossing)
        words = transfers.words_of(domain, span)
        if not run.program.layers[place].on_array:
            assert not words
            continue
        assert len(words) == len(crossing)
        source = storage.operands(place)[0].work
        for (holding, places, _), stream in zip(words, crossing, strict=True):
            assert (holding.work, holding.tiles[0]) == (place, span.tile)
            assert set(places.tolist()) <= set(storage.places_of(holding).tolist())
            if holding.words == INPUT_WORDS and source is None:
                assert stream.domain == PROTECTED
            elif holding.words == INPUT_WORDS:
                assert storage.stored_by(run.program.layers[source], stream.domain)[places].all()
            if holding.words != WEIGHT_WORDS:
                assert len(places) * run.program.element_bytes == stream.data_bytes
        every = {(holding, word) for holding, places, _ in words for word in places.tolist()}
        if words and len(every) <= 100:
            transfer = Transfer(domain, span, 0, total)
            reached = {
                transfers.word_of_transfer(transfer._replace(passed=passed), part / 64)
                for passed in range(total)
                for part in range(64)
            }
            assert reached <= every
            if len(every) <= total:
                assert reached == every


def test_ports_that_share_the_bus_are_served_a_quantum_at_a_time():
    layers = (conv(inputs=(4, 6, 6), channels=6),)
    half = split_of({"conv1": np.arange(216).reshape(6, 6, 6) % 2 == 0})
    run = simulate(Chain(layers), machine(), half)
    together = [s for s in run.timeline if s.resource == "bus" and " + " in s.what]
    assert together
    span = max(together, key=lambda each: each.cycles)
    quantum = 16 // 8
    ports = span.what.split(" + ")
    for cycle in range(span.start_cycle, span.end_cycle):
        transfer = run.schedule.transfers.under_way(cycle)
        port = ports[(cycle - span.start_cycle) // quantum % len(ports)]
        assert (transfer.span.resource if transfer else "controller") == port


@given(runs(single=True), st.integers(0, 2**32))
@patient(EXAMPLES)
def test_bits_are_found_in_the_holdings_that_cover_them(run, seed):
    storage = run.schedule.storage
    draw = np.random.default_rng(seed)
    for domain in DOMAINS:
        for component in ("input_buffer", "weight_buffer", "output_buffer", "resident", "memory"):
            held = storage.held(component, domain)
            bits = draw.integers(0, held.bits + 1, 30)
            starts = draw.integers(0, run.latency_cycles, 30)
            lasting = draw.random(30) < 0.5
            ends = np.where(lasting, starts + draw.integers(1, 500, 30), starts + 1)
            asked, number, word = held.struck(bits, starts, ends)
            found = set(zip(asked.tolist(), number.tolist(), word.tolist(), strict=True))
            expected = set()
            for place, holding in enumerate(held.holdings):
                begins = holding.bits(np.arange(holding.length), storage.width).tolist()
                for question in range(30):
                    if starts[question] >= holding.end or ends[question] <= holding.start:
                        continue
                    for index, begin in enumerate(begins):
                        if begin <= bits[question] < begin + storage.width:
                            expected.add((question, place, index))
            assert found == expected


def test_maps_of_a_long_chain_take_turns_in_a_resident_buffer():
    """Three maps of 40, 30 and 60 words never lie together, but each two in a row fill it."""
    layers, source, shape = [], INPUT, (1, 1, 10)
    for number, channels in enumerate((4, 3, 6, 3, 4, 6, 2), 1):
        layers.append(
            conv(f"conv{number}", source, inputs=shape, channels=channels, kernel=(1, 1),
                 padding=(0, 0))
        )  # fmt: skip
        source, shape = layers[-1].name, layers[-1].out_shape
    layers = tuple(layers)
    run = simulate(Chain(layers), machine(protected__buffers__resident_bytes=200), dense(layers))
    maps = run.schedule.storage.resident[PROTECTED]
    assert [each.work for each in maps] == list(range(7))
    assert max(base + 16 * words for each in maps for base, words in each.pieces) <= 1600
    assert any(len(each.pieces) > 1 for each in maps)
    held = Held(maps, 16)
    for each in maps:
        bits = each.bits(np.arange(each.length), 16)
        now = np.full(each.length, each.start)
        asked, number, word = held.struck(bits, now, now + 1)
        mine = number == each.work
        assert asked[mine].tolist() == word[mine].tolist() == list(range(each.length))
