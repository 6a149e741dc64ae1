"""What is shown of a run: the trace, the roofline, cycles by cause, the bottleneck, the figures."""

import gzip
import json
from collections import defaultdict
from functools import cache
from itertools import pairwise

import pytest
from hardware import (
    Chain,
    add,
    conv,
    dense,
    flatten,
    linear,
    max_pool,
    patient,
    random_masks,
    runs,
    split_of,
)
from hypothesis import given

from nce_sim.config.machine import load_machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import BUS, Run, simulate
from nce_sim.machine.probe import BARRIER, CAUSES, COMPUTE
from nce_sim.report.causes_figure import figure_causes
from nce_sim.report.channels import local_port, passages
from nce_sim.report.counters import buffer_fill, capacities, useful_macs, utilisation
from nce_sim.report.labels import Label, name_above
from nce_sim.report.machine_figure import figure_machine
from nce_sim.report.perfetto import trace_bytes, write_trace
from nce_sim.report.roofline import BOTH, WHOLE, roofline_points, roofs
from nce_sim.report.roofline_figure import figure_roofline
from nce_sim.report.run_page import write_run
from nce_sim.report.run_report import RunReport, cause_rows, cost_rows, headline
from nce_sim.report.style import new_figure, svg_bytes
from nce_sim.report.timeline_figure import figure_timeline
from nce_sim.schedule.domains import DOMAINS
from nce_sim.study.bottleneck import (
    Bottleneck,
    Gain,
    candidates,
    changed_machine,
    find_bottleneck,
)
from nce_sim.workload.layer import Layer

LAYERS = (
    conv("conv1", inputs=(3, 16, 16), channels=40),
    conv("conv2", "conv1", inputs=(40, 16, 16), channels=40),
    add("add1", "conv2", "conv1", inputs=(40, 16, 16)),
    max_pool("pool1", "add1", (40, 16, 16)),
    conv("conv3", "pool1", inputs=(40, 8, 8), channels=24, stride=(2, 2)),
    flatten("flat", "conv3", (24, 4, 4)),
    linear("fc1", "flat", 384, 30),
)
SPLIT = split_of(random_masks(LAYERS, 5))

MACHINES = {
    "small": ("nce-small", {}),
    "large": ("nce-28nm", {}),
    "odd clock": ("nce-28nm", {"clock_mhz": 333.3}),
    "fused": ("nce-fused", {}),
    "holes, by priority, overflow": (
        "nce-small",
        {"layout": "holes", "bus.arbitration": "priority", "overflow": True},
    ),
    "retries, weights once": (
        "nce-small",
        {"protected.array.scheme": "temporal_dmr", "weights": "protected_only"},
    ),
}


def machine(name: str):
    base, changes = MACHINES[name]
    return changed_machine(load_machine(base), changes)


@cache
def example(name: str = "small", batch: int = 1) -> Run:
    rate = 1e-5 if name.startswith("retries") else 0
    return simulate(Chain(LAYERS), machine(name), SPLIT, batch=batch, mismatch_rate=rate, seed=1)


def layers_of(run: Run) -> tuple[Layer, ...]:
    """Return the layers of a run with those that only flatten, which the program leaves out."""
    layers: list[Layer] = []
    for work in run.program.layers:
        if work.layer.source == "flat":
            layers.append(flatten("flat", layers[-1].name, layers[-1].out_shape))
        layers.append(work.layer)
    return tuple(layers)


def events_of(run: Run) -> list[dict]:
    return json.loads(trace_bytes(run, layers_of(run)))["traceEvents"]


def slices_by_track(events: list[dict]) -> dict[str, list[dict]]:
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[names[event["tid"]]].append(event)
    return found


def counters_of(events: list[dict]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            (value,) = event["args"].values()
            domain = processes[event["pid"]].partition(" ")[0]
            found[domain, event["name"]].append((event["ts"], value))
    return found


every_machine = pytest.mark.parametrize("name", MACHINES)


@every_machine
@pytest.mark.parametrize("batch", [1, 3])
def test_slices_of_a_track_follow_one_another_and_have_the_times_of_their_cycles(name, batch):
    run = example(name, batch)
    events = events_of(run)
    clock = run.machine.config.clock_mhz
    for track, slices in slices_by_track(events).items():
        for event in slices:
            start, end = event["args"]["start_cycle"], event["args"]["end_cycle"]
            assert 0 <= start < end <= run.latency_cycles, track
            assert event["args"]["cycles"] == end - start
            assert event["ts"] == pytest.approx(start / clock, abs=5.1e-4)
            assert event["ts"] + event["dur"] == pytest.approx(end / clock, abs=5.1e-4)
        for before, after in pairwise(slices):
            assert before["args"]["end_cycle"] <= after["args"]["start_cycle"], (track, after)
            # In whole nanoseconds, as Perfetto reads them.
            end = round(1000 * before["ts"]) + round(1000 * before["dur"])
            assert end <= round(1000 * after["ts"])
    times = [event["ts"] for event in events if event["ph"] in "XC"]
    assert times == sorted(times)


@every_machine
def test_every_track_has_a_name_and_a_place_and_threads_are_unique(name):
    events = events_of(example(name))
    about = [event for event in events if event["ph"] == "M"]
    assert {event["ph"] for event in events} == {"M", "X", "C"}
    places = [(e["pid"], e["tid"]) for e in about if e["name"] == "thread_name"]
    assert len({thread for _, thread in places}) == len(places)
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} <= set(places)
    orders = [e["args"]["sort_index"] for e in about if e["name"] == "thread_sort_index"]
    assert len(orders) == len(places)
    assert orders == sorted(set(orders))


@every_machine
def test_tracks_hold_the_whole_run(name):
    run = example(name)
    tracks = slices_by_track(events_of(run))
    for track in ("layers", "protected array", "unprotected array"):
        assert sum(event["args"]["cycles"] for event in tracks[track]) == run.latency_cycles
    for domain in DOMAINS:
        for cause in CAUSES:
            shown = sum(
                event["args"]["cycles"]
                for event in tracks[f"{domain} array"]
                if event["args"]["cause"] == cause
            )
            spans = (s for s in run.timeline if s.domain_of_array == domain and s.what == cause)
            assert shown == sum(span.cycles for span in spans)
        computed = [e for e in tracks[f"{domain} array"] if e["args"]["cause"] == COMPUTE]
        assert all(" tile " in event["name"] for event in computed)
    assert sum(event["args"]["cycles"] for event in tracks["bus"]) == run.bus.busy_cycles
    for event in [*tracks["bus"], *tracks["protected local port"]]:
        assert sum(event["args"]["cycles_by_purpose"].values()) == event["args"]["cycles"]
    barriers = [e for e in tracks["controller"] if e["name"].startswith("barrier")]
    assert len(barriers) == len(run.program.layers)


@every_machine
def test_bytes_of_the_ports_are_those_of_the_channels(name):
    run = example(name)
    moved = defaultdict(int)
    for track, slices in slices_by_track(events_of(run)).items():
        if track.endswith((" load", " store")):
            for event in slices:
                for purpose, size in event["args"]["bytes_by_purpose"].items():
                    moved[purpose] += size
    counted = defaultdict(int)
    for channel in (run.bus, *run.local_ports.values()):
        for purpose, size in channel.bytes_by_purpose.items():
            counted[purpose] += size
    del counted["protection map"]
    assert moved == counted


@every_machine
def test_external_data_move_only_while_the_bus_is_busy(name):
    run = example(name)
    tracks = slices_by_track(events_of(run))
    busy = [(e["args"]["start_cycle"], e["args"]["end_cycle"]) for e in tracks["bus"]]
    for event in tracks["external memory"]:
        start, end = event["args"]["start_cycle"], event["args"]["end_cycle"]
        assert any(first <= start and end <= last for first, last in busy)
        assert not any("on chip" in purpose for purpose in event["args"]["cycles_by_purpose"])
    external = sum(event["args"]["cycles"] for event in tracks["external memory"])
    on_chip = sum(
        cycles
        for event in tracks["bus"]
        for purpose, cycles in event["args"]["cycles_by_purpose"].items()
        if "on chip" in purpose
    )
    assert external + on_chip == run.bus.busy_cycles


@every_machine
@pytest.mark.parametrize("batch", [1, 3])
def test_counters_stay_within_their_capacity_and_return_to_zero(name, batch):
    run = example(name, batch)
    counters = counters_of(events_of(run))
    for domain in DOMAINS:
        bounds = {f"{key} buffer": size for key, size in capacities(run, domain).items()}
        bounds["array utilisation"] = 100
        for key, bound in bounds.items():
            steps = counters.get((domain, key), [])
            values = [value for _, value in steps]
            assert all(0 <= value <= bound for value in values), (domain, key)
            assert not values or values[-1] == 0, (domain, key)
            assert [time for time, _ in steps] == sorted({time for time, _ in steps})


@given(runs())
@patient(25)
def test_what_passes_a_channel_is_what_the_tiles_move_and_ends_when_they_do(run):
    ends = defaultdict(int)
    for channel in (BUS, *(local_port(domain) for domain in DOMAINS)):
        busy = 0
        for span, passed in passages(run, channel):
            edges = [span.start_cycle, *(part.end_cycle for part in passed)]
            assert [part.start_cycle for part in passed] == edges[:-1]
            assert edges[-1] == span.end_cycle
            busy += span.cycles
            for part in passed:
                way = "store" if "outputs" in part.purpose else "load"
                array = part.purpose.partition(" ")[0]
                key = f"{array} {way}", part.layer, part.tile
                ends[key] = max(ends[key], part.end_cycle)
        traffic = run.bus if channel == BUS else run.local_ports[channel.partition(" ")[0]]
        assert busy == traffic.busy_cycles
    for span in run.timeline:
        if span.what in ("load", "store"):
            assert span.end_cycle == ends[span.resource, span.layer, span.tile]


@given(runs())
@patient(25)
def test_buffers_never_hold_more_than_they_can_and_are_empty_in_the_end(run):
    for domain in DOMAINS:
        bounds = capacities(run, domain)
        for buffer, steps in buffer_fill(run, layers_of(run), domain).items():
            held = [value for _, value in steps]
            assert all(0 <= value <= bounds[buffer] for value in held), (domain, buffer)
            assert not held or held[-1] == 0
            assert [cycle for cycle, _ in steps] == sorted({cycle for cycle, _ in steps})


@given(runs())
@patient(20)
def test_utilisation_over_time_adds_up_to_the_useful_work(run):
    for domain in DOMAINS:
        macs = sum(sum(useful_macs(work, domain)) for work in run.program.layers if work.on_array)
        assert macs == run.counts.domains[domain].useful_macs
        by_layer = (of_layer[domain] for of_layer in run.useful_macs_by_layer.values())
        assert sum(by_layer) == macs
        steps = utilisation(run, domain)
        assert all(0 <= share <= 1 for _, share in steps)
        if run.machine.config.fabric is None:
            area = sum(share * (end - start) for (start, share), (end, _) in pairwise(steps))
            assert area / run.latency_cycles == pytest.approx(run.utilisation(domain))


@given(runs())
@patient(20)
def test_causes_of_every_layer_sum_to_its_time_and_layers_to_the_latency(run):
    ends = 0
    for layer, (start, end) in run.layer_intervals.items():
        assert start == ends
        ends = end
        for causes in run.cycles_by_layer_and_cause[layer].values():
            assert all(cycles >= 0 for cycles in causes.values()), (layer, causes)
            assert sum(causes.values()) == end - start
    assert ends == run.latency_cycles
    for domain in DOMAINS:
        assert sum(run.cycles_by_cause[domain].values()) == run.latency_cycles


def test_the_same_run_gives_the_same_trace_and_a_compressed_one_holds_it(tmp_path):
    run = example()
    content = trace_bytes(run, LAYERS)
    assert content == trace_bytes(simulate(Chain(LAYERS), run.machine, SPLIT), LAYERS)
    for name in ("trace.json", "one.json.gz", "two.json.gz"):
        write_trace(run, LAYERS, tmp_path / name)
    assert (tmp_path / "trace.json").read_bytes() == content
    assert gzip.decompress((tmp_path / "one.json.gz").read_bytes()) == content
    assert (tmp_path / "one.json.gz").read_bytes() == (tmp_path / "two.json.gz").read_bytes()
    with pytest.raises(InputError, match="cannot write"):
        write_trace(run, LAYERS, tmp_path / "trace.json" / "below.json")


def test_a_tile_names_what_it_moves():
    tracks = slices_by_track(events_of(example()))
    event = next(e for e in tracks["protected load"] if e["name"] == "conv1 tile 0")
    moved = event["args"]["bytes_by_purpose"]
    assert set(moved) == {"protected weights", "protected inputs"}
    assert event["args"]["moved_bytes"] == sum(moved.values()) >= event["args"]["data_bytes"] > 0
    # The memory's 20 cycles, and one of the codec of the protected region.
    assert event["args"]["latency_cycles"] == 21


def test_roofline_of_one_layer_agrees_with_a_computation_by_hand():
    """A 1x1 convolution, 4 to 8 channels of 8x8, all protected, on nce-small."""
    layer = conv(inputs=(4, 8, 8), channels=8, kernel=(1, 1), padding=(0, 0))
    run = simulate(Chain((layer,)), machine("small"), dense((layer,)))
    macs = 8 * 64 * 4
    # A row of 8 elements is 16 bytes, 18 with check bits: one burst of 32; there are 4 x 8 rows.
    inputs = 4 * 8 * 32
    # 8 x 4 weights are 64 bytes, 72 with check bits: three bursts. The output stays on the chip.
    weights = 3 * 32
    # The map has a bit for each of 512 neurons: 64 bytes, 72 with check bits.
    protection_map = 3 * 32
    of_layer, whole = (p for p in roofline_points(run) if p.array == "protected")
    assert (of_layer.layer, of_layer.macs, of_layer.memory_bytes) == (
        "conv1",
        macs,
        inputs + weights,
    )
    waits = run.cycles_by_cause["protected"][BARRIER]
    assert of_layer.macs_per_cycle == macs / (run.latency_cycles - waits)
    assert of_layer.macs_per_byte == macs / (inputs + weights)
    assert (whole.layer, whole.cycles) == (WHOLE, run.latency_cycles)
    of_both = [p for p in roofline_points(run) if p.array == BOTH]
    assert [p.memory_bytes for p in of_both] == [
        inputs + weights, inputs + weights + protection_map,
    ]  # fmt: skip
    assert not [p for p in roofline_points(run) if p.array == "unprotected"]
    bounds = roofs(run, "protected")
    assert bounds.peak_macs == pytest.approx(8 * 4 / 3)  # each wave runs three times
    assert bounds.memory_bytes == pytest.approx(16 * 0.95 * (1 - 56 / 781))
    assert bounds.bus_bytes == 16
    assert bounds.at(0.1) == pytest.approx(0.1 * bounds.memory_bytes)
    assert bounds.at(1e6) == bounds.peak_macs


@given(runs())
@patient(25)
def test_no_point_lies_above_the_roofs(run):
    for point in roofline_points(run):
        roof = roofs(run, point.array).at(point.macs_per_byte)
        assert point.macs_per_cycle <= roof * (1 + 1e-9), (point, roof)


def quiet(name, steps):
    return lambda done: None


def with_bytes_per_cycle(bus: float, memory: float):
    changes = {"bus.bytes_per_cycle": bus, "memory.bytes_per_cycle": memory}
    return changed_machine(load_machine("nce-28nm"), changes)


def bottleneck_of(machine, layers=LAYERS, split=SPLIT) -> Bottleneck:
    network = Chain(layers)
    return find_bottleneck(network, split, simulate(network, machine, split), begin=quiet)


def test_a_starved_bus_is_the_bottleneck():
    found = bottleneck_of(with_bytes_per_cycle(0.5, 25.6))
    assert found.largest.what == "doubling the bus bandwidth"
    assert found.largest.gain > 0.3
    assert str(found).startswith("doubling the bus bandwidth gains ")
    assert [each.gain for each in found.gains] == sorted(
        (each.gain for each in found.gains), reverse=True
    )


def test_a_starved_memory_is_the_bottleneck():
    assert bottleneck_of(with_bytes_per_cycle(32, 0.5)).largest.what == (
        "doubling the memory bandwidth"
    )


def test_a_bus_as_narrow_as_the_memory_is_one_with_it():
    found = bottleneck_of(with_bytes_per_cycle(0.5, 0.6))
    assert found.largest.what == "doubling the bandwidths of bus and memory"


def test_the_lanes_are_the_bottleneck_where_data_come_fast():
    layer = conv(inputs=(64, 8, 8), channels=64)
    found = bottleneck_of(machine("large"), (layer,), dense((layer,)))
    assert found.largest.what == "doubling the protected lanes"
    gains = {each.what: each for each in found.gains}
    assert gains["doubling the unprotected lanes"].gain == 0
    changes = {"protected.array.columns": 32, "protected.array.weight_words": 32}
    again = simulate(Chain((layer,)), changed_machine(machine("large"), changes), dense((layer,)))
    assert gains["doubling the protected lanes"].latency_cycles == again.latency_cycles


def test_nothing_is_named_that_gains_less_than_a_hundredth():
    gains = (Gain("doubling this", 1, 995, 0.005), Gain("doubling that", 1, 1001, -0.001))
    assert str(Bottleneck(1000, gains, ())).startswith("no resource by itself limits the run")


def test_several_resources_at_once_are_named_only_if_they_gain_more():
    one, both = Gain("doubling this", 1, 900, 0.1), Gain("doubling both", 2, 895, 0.105)
    assert Bottleneck(1000, (both, one), ()).largest is one
    more = Gain("doubling both", 2, 800, 0.2)
    assert Bottleneck(1000, (more, one), ()).largest is more


def test_a_change_that_makes_no_machine_is_refused_by_name():
    changes = {"bus.bytes_per_cycle": 300, "bus.quantum_bytes": 512}
    found = bottleneck_of(changed_machine(load_machine("nce-small"), changes))
    assert found.refused == (
        "doubling the bus bandwidth", "doubling the bandwidths of bus and memory",
    )  # fmt: skip


def test_a_fabric_has_candidates_of_its_own():
    names = [each.what for each in candidates(load_machine("nce-fused").config)]
    assert "doubling the columns of the fabric" in names
    assert not any("protected lanes" in name for name in names)
    changes = {"fabric.columns": 128, "fabric.clusters": 22}
    arrays = changed_machine(load_machine("nce-fused"), changes).config.arrays
    assert [arrays[domain].columns for domain in DOMAINS] == [22, 62]


def test_progress_of_the_bottleneck_counts_to_its_end():
    told = []

    def begin(name, steps):
        told.append(steps)
        return told.append

    run = example()
    find_bottleneck(Chain(LAYERS), SPLIT, run, begin=begin)
    assert told == [told[0], *range(1, told[0] + 1)]


@every_machine
def test_figures_show_every_layer_and_resource_and_are_the_same_each_time(name):
    run = example(name, 3 if name == "large" else 1)
    for draw in (figure_timeline, figure_causes, figure_roofline):
        figure = draw(run, "title")
        assert svg_bytes(figure) == svg_bytes(draw(run, "title"))
    neurons = {layer.name for layer in LAYERS if layer.has_neurons}
    panels = figure_roofline(run, "title").axes
    assert {text.get_text() for text in panels[0].texts} == neurons
    causes = figure_causes(run, "title").axes[1]
    assert [label.get_text() for label in causes.get_yticklabels()] == list(run.layer_intervals)
    rows = [label.get_text() for label in figure_timeline(run, "title").axes[0].get_yticklabels()]
    assert len(rows) == len({span.resource for span in run.timeline})


@pytest.mark.parametrize("name", ["nce-28nm", "nce-small", "nce-fused", "os-32x32"])
def test_no_text_of_the_block_diagram_leaves_its_block(name):
    figure = figure_machine(load_machine(name))
    svg_bytes(figure)
    axes = figure.axes[0]
    blocks = [patch.get_window_extent() for patch in axes.patches if patch.get_width() > 10]
    for text in axes.texts:
        if text.get_text():
            box = text.get_window_extent()
            assert any(
                block.x0 <= box.x0 and box.x1 <= block.x1
                and block.y0 <= box.y0 and box.y1 <= block.y1
                for block in blocks
            ), text.get_text()  # fmt: skip


def test_names_above_a_panel_keep_their_distance_and_the_heaviest_stay():
    axes = new_figure(3, "").subplots()
    axes.set_xlim(0, 1)
    labels = [Label(0.5 + number / 1000, 0.5, f"layer{number}", number) for number in range(50)]
    name_above(axes, labels, 230, "black")
    assert len(axes.texts) == 20
    assert {text.get_text() for text in axes.texts} == {f"layer{n}" for n in range(30, 50)}
    places = [text.xyann[0] for text in axes.texts]
    assert all(0 <= place <= 1 for place in places)
    assert all(after - before > 0.049 for before, after in pairwise(places))


def test_the_page_of_a_run_holds_its_figures_and_tables(tmp_path):
    run = example("retries, weights once", 3)
    report = RunReport("a <network>", SPLIT, run, bottleneck_of(machine("small")))
    write_run(report, tmp_path / "one")
    write_run(report, tmp_path / "two")
    page = (tmp_path / "one" / "index.html").read_text()
    assert "a &lt;network&gt;" in page
    assert "a <network>" not in page
    assert page.count("<svg") == 4
    assert "waves repeated after a mismatch" in page
    assert str(report.bottleneck) in page
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 3 + 2 * 4
    for path in files:
        assert (
            path.read_bytes()
            == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        )
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert summary["bottleneck"]["largest"] == str(report.bottleneck)
    assert summary["images"] == 3


def test_what_is_said_of_a_run_is_by_image_and_sums_up():
    run = example("small", 3)
    rows = {row.name: row.cells for row in cause_rows(run)}
    for place in (0, 2):
        cycles = [int(cells[place].replace(",", "")) for name, cells in rows.items()
                  if name not in ("total", "useful lane-cycles")]  # fmt: skip
        assert sum(cycles) == run.latency_cycles
    total = next(row for row in cost_rows(run) if row.name == "total")
    assert float(total.cells[0].replace(",", "")) == pytest.approx(
        run.energy.total_pj / 3e6, abs=0.006
    )
    said = headline(RunReport("network", SPLIT, run))
    assert "for a batch of 3 images" in said[1]
    assert f"{3e6 * 200 / run.latency_cycles:,.1f} images/s" in said[1]
