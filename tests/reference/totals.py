"""Sums over all tiles: what a run's counts must be, as plain dictionaries."""

from collections import Counter

from reference.layers import is_inside, out_width, taps
from reference.maps import DOMAINS, PROTECTED, UNPROTECTED

from nce_sim.workload.layer import Kind

PURPOSES = ("weights", "inputs", "crossings", "outputs", "protection_map")


def totals(recount, latency_cycles):
    """Return what `dataclasses.asdict` of the run's counts must be."""
    machine, memory, works = recount.machine, recount.memory, recount.works
    streams = [stream for _, _, tile in every_tile(works) for stream in (*tile.loads, *tile.stores)]
    maps = [memory.segment(PROTECTED, work.map_bytes) for work in works if work.map_bytes]
    external = [stream for stream in streams if stream.external]
    from_memory = Counter(protection_map=sum(moved for moved, _ in maps))
    for stream in external:
        from_memory[stream.what] += stream.moved_bytes
    on_bus = from_memory + Counter(crossings=sum(s.moved_bytes for s in crossings(works)))
    read, written = zip(*(protected_words(recount, work) for work in works), strict=True)
    return {
        "domains": {array: totals_of_array(recount, array) for array in DOMAINS},
        "bus": {purpose: on_bus[purpose] for purpose in PURPOSES},
        "memory": {purpose: from_memory[purpose] for purpose in PURPOSES},
        "crossing_bytes": sum(s.data_bytes for s in streams if s.what == "crossings"),
        "spilled_bytes": sum(s.data_bytes for s in external if s.what == "outputs"),
        "map_bytes": sum(work.map_bytes for work in works),
        "memory_words_read": sum(read),
        "memory_words_written": sum(written),
        "rows_opened": sum(s.rows_opened for s in external) + sum(opened for _, opened in maps),
        "refreshes": latency_cycles // machine.memory.refresh_interval_cycles,
        "tiles": sum(1 for _ in every_tile(works)),
        "switches": sum(work.switches for work in works),
        "latency_cycles": latency_cycles,
        "images": recount.batch,
    }


def protected_words(recount, work):
    """Return the whole words that a layer reads from the protected region and writes to it."""
    moved = Counter(read=recount.memory.segment(PROTECTED, work.map_bytes)[0])
    if not work.map_bytes:
        moved.clear()
    for _, _, tile in every_tile([work]):
        for stream in (*tile.loads, *tile.stores):
            if stream.external and stream.holder == PROTECTED:
                way = "written" if stream.what == "outputs" else "read"
                moved[way] += stream.moved_bytes
    word_bytes = 8 * recount.memory.stored[PROTECTED]
    return moved["read"] // word_bytes, moved["written"] // word_bytes


def every_tile(works):
    for work in works:
        for array in DOMAINS:
            for tile in work.tiles[array]:
                yield work, array, tile


def crossings(works):
    """Return the streams between one domain's resident buffer and the other's array."""
    return [
        stream
        for _, array, tile in every_tile(works)
        for stream in (*tile.loads, *tile.stores)
        if stream.holder != array and not stream.external
    ]


def totals_of_array(recount, array):
    counts, data, resident = Counter(), Counter(), Counter()
    for work, of_array, tile in every_tile(recount.works):
        for stream in (*tile.loads, *tile.stores):
            way = "written" if stream.what == "outputs" else "read"
            if of_array == array:
                data[stream.what] += stream.data_bytes
            if stream.holder == array and not stream.external:
                resident[way] += stream.data_bytes
        if of_array == array:
            counts += tile.counts
            if work.layer.has_neurons:
                counts += neurons_done(recount, work, array, tile)
    return {
        "neurons": counts["neurons"],
        "overflow_neurons": counts["overflow"],
        "useful_macs": counts["useful_macs"],
        "padded_macs": counts["padded_macs"],
        "lane_macs": counts["lane_macs"],
        "retried_macs": counts["retried_macs"],
        "votes": counts["votes"],
        "clips": counts["neurons"] if recount.machine.arrays[array].clip else 0,
        "input_read_bytes": counts["input_read_bytes"],
        "weight_read_bytes": counts["weight_read_bytes"],
        "input_written_bytes": data["inputs"] + data["crossings"],
        "weight_written_bytes": data["weights"],
        "output_bytes": data["outputs"],
        "resident_read_bytes": resident["read"],
        "resident_written_bytes": resident["written"],
        "exchanged_bytes": exchanged_bytes(recount.works, array),
        "vector_elements": counts["vector_elements"],
        "waves": counts["waves"],
        "repeated_waves": counts["repeated_waves"],
        "busy_lane_cycles": counts["busy_lane_cycles"],
        "idle_lane_cycles": counts["idle_lane_cycles"],
    }


def exchanged_bytes(works, array):
    """Return the data that an array and the rest of the machine gave one another over the bus."""
    return sum(
        stream.data_bytes
        for _, of_array, tile in every_tile(works)
        for stream in (*tile.loads, *tile.stores)
        if (of_array == array and (stream.external or stream.holder != array))
        or (of_array != array and not stream.external and stream.holder == array)
    )


def neurons_done(recount, work, array, tile):
    """Count the neurons that a tile completes, their operations, and those on padding."""
    layer, counts = work.layer, Counter()
    unprotected = recount.unprotected[layer.name].reshape(layer.channels, -1)
    for _, (channel, position) in tile.done:
        counts["neurons"] += 1
        counts["useful_macs"] += layer.reduction_length
        counts["overflow"] += bool(unprotected[channel, position]) and array == PROTECTED
        if layer.kind is Kind.CONV2D:
            places = taps(layer, *divmod(position, out_width(layer)))
            outside = sum(not is_inside(layer, *place) for place in places)
            counts["padded_macs"] += outside * (layer.reduction_length // layer.window)
    return counts


def check_every_neuron_is_done_once(recount):
    """Each output of each image is made by one tile, of the domain that it belongs to."""
    for work in recount.works:
        layer = work.layer
        done = Counter(each for array in DOMAINS for t in work.tiles[array] for each in t.done)
        assert set(done.values()) == {1}
        assert len(done) == recount.batch * layer.outputs
        if layer.has_neurons:
            marked = recount.unprotected[layer.name].reshape(layer.channels, -1)
            on_pes = {neuron for tile in work.tiles[UNPROTECTED] for _, neuron in tile.done}
            assert all(marked[neuron] for neuron in on_pes)


def check_every_tile_fits(recount):
    """What a tile loads and stores lies in one half of each buffer; its maps, in the resident."""
    for _, array, tile in every_tile(recount.works):
        buffers = recount.machine.domains[array].buffers
        data = Counter()
        for stream in (*tile.loads, *tile.stores):
            data[stream.what] += stream.data_bytes
        assert data["inputs"] + data["crossings"] <= buffers.input_bytes
        assert data["weights"] <= buffers.weight_bytes
        assert data["outputs"] <= buffers.output_bytes


def check_maps_stay_where_they_fit(recount):
    """A domain's part of a map is resident if and only if it fits beside those still needed."""
    readers = {}
    for number, layer in enumerate(recount.layers):
        for source in (layer.source, *layer.others):
            readers[source] = number
    kept = {array: {} for array in DOMAINS}
    works = {work.layer.name: work for work in recount.works}
    for number, layer in enumerate(recount.layers):
        for array, held in kept.items():
            if layer.name not in works:
                if layer.source in held:
                    held[layer.name] = held[layer.source]
                    held.pop(layer.source)
                continue
            output = works[layer.name].output
            needed = recount.batch * recount.memory.size * resident_elements(recount, output, array)
            free = recount.machine.domains[array].buffers.resident_bytes - sum(held.values())
            assert output.external[array] == (needed > free)
            if not output.external[array]:
                held[layer.name] = needed
            for name in [name for name in held if readers.get(name, number + 1) <= number]:
                del held[name]


def resident_elements(recount, output, array):
    """Return the elements for which a part of a map takes room; holes take it, too."""
    every = output.channels * output.height * output.width
    marked = len(output.unprotected)
    own = marked if array == UNPROTECTED else every - marked
    return every if recount.memory.holes and own else own


def bytes_on_channels(recount):
    """Return the bytes that the bus and each local port must move."""
    moved = Counter()
    for _, array, tile in every_tile(recount.works):
        for stream in (*tile.loads, *tile.stores):
            is_local = stream.holder == array and not stream.external
            moved[f"{array} local port" if is_local else "bus"] += stream.moved_bytes
    for work in recount.works:
        moved["bus"] += recount.memory.segment(PROTECTED, work.map_bytes)[0]
    return moved
