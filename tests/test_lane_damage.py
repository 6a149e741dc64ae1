"""Damage expected from faults of lanes: displacements, chances of being hit, and the ranking."""

import struct
from ctypes import c_int8, c_int32
from functools import cache
from math import exp, isfinite

import numpy as np
import pytest
import torch
from hardware import machine, patient, runs
from hypothesis import assume, given
from scipy.stats import spearmanr
from small_networks import all_convolutional, fill, images, labels, one_thread, with_pooling
from torch import nn
from torch.nn import functional

import nce_sim as nce
from nce_sim.cli.ranking_fault import AskedFault
from nce_sim.faults.displacement import LayerWords, changes_of
from nce_sim.faults.hit_chance import exposed_cycles, hit_chances
from nce_sim.faults.lane_damage import LaneDamage
from nce_sim.faults.mission import Mission
from nce_sim.resilience.damage import Sensitivity, objective_of
from nce_sim.schedule.domains import DOMAINS
from nce_sim.workload.execute import PRECISION_OF_FORMAT, all_outputs, forward, prepare

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

FORMATS = ("fp32", "fp16", "bf16", "int8")
WIDTH = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}
EFFECTS = (
    nce.BitFlip(), nce.BitFlip(count=2), nce.BitFlip(bit=3), nce.Zero(), nce.RandomValue(),
    nce.StuckAt(), nce.StuckAt(value=1),
)  # fmt: skip


@cache
def network(pooled=False):
    module = with_pooling() if pooled else all_convolutional()
    return nce.Workload.from_module(module, images(1))


@cache
def calibration(pooled=False):
    return nce.calibrate(network(pooled), images(64))


@cache
def executable(form, pooled=False):
    return prepare(network(pooled), PRECISION_OF_FORMAT[form], calibration=calibration(pooled))


@cache
def answers(count):
    """What the float32 network says: labels of which all are right."""
    ran = prepare(network(), "float32")
    with torch.inference_mode():
        return forward(ran, ran.images(images(count))).flatten(1).argmax(1).clone()


@cache
def sensitivities(pooled=False, count=3):
    """Every layer's outputs in float32, and the margin's slopes, by layer."""
    reference = prepare(network(pooled), "float32")
    values = all_outputs(reference, images(count).requires_grad_())
    last = values[network(pooled).output.name].flatten(1)
    margin = objective_of("margin", last, labels(count))
    layers = network(pooled).neuron_layers
    slopes = torch.autograd.grad(margin.sum(), [values[layer.name] for layer in layers])
    return {
        layer.name: Sensitivity(
            layer, values[layer.source].detach(), values[layer.name].detach(), slope,
            margin.detach(),
        )
        for layer, slope in zip(layers, slopes, strict=True)
    }  # fmt: skip


def fault(site="output", process=None, effect=None):
    return nce.Fault(
        nce.Site("unprotected", site), process or nce.Transient(1e-6), effect or nce.BitFlip()
    )


def expected(form="fp16", pooled=False, given_machine=None, **options):
    chosen = given_machine or machine(
        number_format=form,
        protected__buffers__input_bytes=4096, unprotected__buffers__input_bytes=4096,
    )  # fmt: skip
    return nce.expected_damage(
        fault(**options), network(pooled), chosen, calibration=calibration(pooled)
    )


def word_of(form, value):
    """A value's bits, by the standard library."""
    if form == "int8":
        return int(value) & 0xFF
    code, whole = ("<e", "<H") if form == "fp16" else ("<f", "<I")
    bits = struct.unpack(whole, struct.pack(code, value))[0]
    return bits >> 16 if form == "bf16" else bits


def value_of(form, bits):
    if form == "int8":
        return float(c_int8(bits).value)
    code, whole = ("<e", "<H") if form == "fp16" else ("<f", "<I")
    return struct.unpack(code, struct.pack(whole, bits << 16 if form == "bf16" else bits))[0]


def struck(changes, row, bits):
    keep, ones, flip = (int(each[row]) for each in (changes.keep, changes.set, changes.flip))
    return ((bits & keep) | ones) ^ flip


def some(layer, count=9, seed=4):
    draw = np.random.default_rng(seed)
    return [
        (int(image), int(neuron))
        for image, neuron in zip(
            draw.integers(0, 3, count), draw.integers(0, layer.outputs, count), strict=True
        )
    ]


def agree(found, wanted, scale):
    if not isfinite(wanted):
        assert not isfinite(found)
    else:
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6 * float(scale))


@pytest.mark.parametrize("effect", EFFECTS, ids=str)
@pytest.mark.parametrize("form", FORMATS)
def test_stored_outputs_are_displaced_as_their_words_say(form, effect):
    changes = changes_of(effect, WIDTH[form])
    ran = executable(form)
    for seen in sensitivities().values():
        words = LayerWords.outputs(ran, seen)
        step, read_out = ran.step(seen.layer.name), ran.is_read_out(seen.layer)
        stored = ran.format.round((seen.output / step).numpy()).reshape(3, -1)
        raw = seen.output.numpy().reshape(3, -1)
        for row, displacement in enumerate(words.displaced(changes)):
            flat = displacement.flatten(1)
            for image, neuron in some(seen.layer):
                if read_out:  # one byte of a float32
                    bits, shift = word_of("fp32", raw[image, neuron]), 8 * (neuron % 4)
                    byte = struck(changes, row, bits >> shift & 0xFF) & 0xFF
                    before = raw[image, neuron]
                    after = value_of("fp32", bits & ~(0xFF << shift) | byte << shift)
                else:
                    before = stored[image, neuron]
                    mask = 2 ** WIDTH[form] - 1
                    after = value_of(form, struck(changes, row, word_of(form, before)) & mask)
                agree(float(flat[image, neuron]), (after - before) * step, abs(before) * step)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_sums_are_displaced_as_what_is_stored_of_them(form, pooled):
    changes = changes_of(nce.BitFlip(), 32)
    ran = executable(form, pooled)
    for seen in sensitivities(pooled).values():
        words = LayerWords.sums(ran, seen)
        step = ran.step(seen.layer.name)
        sums = words.bits.flatten(1)
        for row, displacement in enumerate(words.displaced(changes)):
            for image, neuron in some(seen.layer, 4):
                bits = int(sums[image, neuron]) & 0xFFFFFFFF
                channel = np.array([neuron // seen.layer.positions])
                ends = []
                for each in (bits, struck(changes, row, bits)):
                    total = c_int32(each).value if form == "int8" else value_of("fp32", each)
                    ends.append(float(ran.finish(seen.layer, np.array([total]), channel)[0]))
                before, after = ends
                agree(
                    float(displacement.flatten(1)[image, neuron]), (after - before) * step,
                    abs(before) * step,
                )  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_sums_end_in_the_layers_outputs(form):
    for seen in sensitivities().values():
        words = LayerWords.sums(executable(form), seen)
        found = words.values(words.bits.clone())
        slack = 2 * executable(form).step(seen.layer.name) if form == "int8" else 2e-2
        assert torch.allclose(found, seen.output, rtol=1e-2, atol=slack)


def margins(outputs, targets):
    return objective_of("margin", outputs.flatten(1), targets).double()


def after_displacing(layer_name, neuron, displacement, inputs):
    """The float32 network's outputs where one neuron is displaced in every image."""
    ran = prepare(network(), "float32")

    def hook(layer, _, output):
        if layer.name == layer_name:
            flat = output.flatten(1).clone()
            flat[:, neuron] += displacement
            output = flat.reshape(output.shape)
        return output

    with torch.inference_mode():
        return forward(ran, ran.images(inputs), hook=hook)


@pytest.mark.parametrize(("form", "bit"), [("fp32", 12), ("fp16", 0), ("bf16", 0), ("int8", 0)])
def test_small_displacements_cost_what_injecting_them_costs(form, bit):
    """One low bit of one neuron: the margin's change in the network, squared, as a share."""
    count = 16
    targets = answers(count)
    with torch.inference_mode():
        ran = prepare(network(), "float32")
        clean = margins(forward(ran, ran.images(images(count))), targets)
    model = expected(form, effect=nce.BitFlip(bit=bit))
    found = nce.rank(network(), images(count), targets, "fault-aware", fault=model).relevance
    seen = sensitivities(count=count)
    close = []
    for name, each in list(seen.items())[:-1]:  # the last is read out, in int8
        displacement = next(
            LayerWords.outputs(model.executable, each).displaced(model.changes)
        ).flatten(1)
        for _, neuron in some(each.layer, 8):
            after = margins(
                after_displacing(name, neuron, displacement[:, neuron], images(count)), targets
            )
            share = ((after - clean) / clean).square().clamp(max=1).mean()
            wanted = float(share) * model.chances[name]
            close.append((float(found[name].ravel()[neuron]), wanted))
    found_costs, wanted_costs = np.array(close).T
    assert spearmanr(found_costs, wanted_costs).statistic > 0.9
    assert found_costs.sum() == pytest.approx(wanted_costs.sum(), rel=0.15)


def test_answers_that_are_wrong_already_have_nothing_to_lose():
    wrong = (answers(8) + 1) % 5
    found = nce.rank(network(), images(8), wrong, "fault-aware", fault=expected()).relevance
    assert all((values == 0).all() for values in found.values())


@pytest.mark.parametrize("form", FORMATS)
def test_no_hit_costs_more_than_the_answer(form):
    for effect in (nce.BitFlip(), nce.RandomValue()):
        model = expected(form, effect=effect)
        found = nce.rank(network(), images(8), answers(8), "fault-aware", fault=model).relevance
        for name, values in found.items():
            assert np.isfinite(values).all()
            assert (values >= 0).all()
            assert (values <= model.chances[name] * (1 + 1e-6)).all()


@patient(8)
@given(run=runs(single=True))
def test_neurons_are_exposed_as_long_as_lanes_hold_them(run):
    """Against asking every lane in every cycle."""
    assume(run.latency_cycles < 5000)
    for array in DOMAINS:
        executions = run.schedule.executions[array]
        works = run.program.layers
        rows = max(work.arrays[array].rows for work in works)
        columns = max(work.arrays[array].columns for work in works)
        held = np.zeros(len(works), int)
        every = np.arange(run.latency_cycles)
        for lane in range(rows * columns):
            there = executions.held(
                every, *(np.full_like(every, at) for at in divmod(lane, columns))
            )
            busy = (there.neuron >= 0) & (there.step >= 0)
            for number in np.unique(executions.work[there.execution[busy]]):
                own = np.logical_or.reduce([share.mask for share in works[number].on(array)])
                mine = busy & (executions.work[there.execution] == number)
                held[number] += int(own.ravel()[there.neuron[mine]].sum())
        found = exposed_cycles(executions)
        for number, work in enumerate(works):
            if work.layer.name in found:
                neurons = sum(int(share.mask.sum()) for share in work.on(array))
                assert found[work.layer.name] == pytest.approx(held[number] / neurons)
            else:
                assert held[number] == 0


def test_chances_follow_their_closed_forms():
    chosen = machine()
    masks = {layer.name: np.ones(layer.out_shape, bool) for layer in network().neuron_layers}
    schedule = nce.simulate(network(), chosen, nce.Split(1.0, "neuron", masks)).schedule
    cycles = exposed_cycles(schedule.executions["unprotected"])
    lanes = chosen.config.unprotected.array.lanes
    zero = nce.Zero()
    cases = {
        nce.Transient(1e-4): lambda c: 1 - exp(-1e-4 * c),
        nce.Transient(5.0, per="second"): lambda c: 1 - exp(-5e-6 / chosen.config.clock_mhz * c),
        nce.Single(): lambda c: c / (lanes * schedule.latency_cycles),
        nce.Permanent(nce.Elements(count=2)): lambda _: 2 / lanes,
        nce.Permanent(nce.Elements(places=(1, 3, 4))): lambda _: 3 / lanes,
        nce.Permanent(nce.Elements(share=0.3)): lambda _: 0.3,
        nce.Permanent(nce.Elements(probability=0.2)): lambda _: 0.2,
        nce.Intermittent(nce.Elements(share=0.5), 100, 300): lambda c: (
            0.5 * (1 - 0.75 * exp(-c / 300))
        ),
    }
    for process, closed in cases.items():
        found = hit_chances(fault("lane", process, zero), schedule)
        assert found == pytest.approx({name: closed(each) for name, each in cycles.items()})
    by_length = sorted(network().neuron_layers, key=lambda layer: layer.reduction_length)
    longest, shortest = by_length[-1].name, by_length[0].name
    assert cycles[longest] > cycles[shortest]


@pytest.mark.parametrize("component", ["output", "lane", "accumulator"])
def test_chances_are_the_frequency_of_hits(component):
    """Mean number of hits in 300 inferences of a rate at which they are many, but rarely double."""
    struck_often = fault(component, nce.Transient(2e-4))
    masks = {layer.name: np.ones(layer.out_shape, bool) for layer in network().neuron_layers}
    schedule = nce.simulate(network(), machine(), nce.Split(1.0, "neuron", masks)).schedule
    mission = Mission(schedule, [struck_often], 3)
    hit = {layer.name: 0 for layer in network().neuron_layers}
    neurons = {layer.name: layer.neurons for layer in network().neuron_layers}
    inferences = 300
    for inference in range(inferences):
        hits = mission.hits(0, inference)["unprotected"].first
        for number, work in enumerate(schedule.program.layers):
            if work.on_array:
                hit[work.layer.name] += len(np.unique(hits.neuron[hits.work == number]))
    for name, chance in hit_chances(struck_often, schedule).items():
        trials = inferences * neurons[name]
        assert abs(hit[name] - trials * chance) < 5 * (trials * chance) ** 0.5 + 1


def test_places_of_faulty_lanes_must_exist():
    with pytest.raises(nce.InputError, match="at most"):
        expected(site="lane", process=nce.Permanent(nce.Elements(count=10**6)), effect=nce.Zero())


@cache
def taught():
    """A network that learned to tell five noisy patterns apart, and images with their classes."""
    draw = np.random.Generator(np.random.Philox(8))
    patterns = torch.from_numpy(draw.standard_normal((5, 1, 8, 8)).astype(np.float32))
    noise = torch.from_numpy(draw.standard_normal((560, 1, 8, 8)).astype(np.float32))
    targets = torch.arange(560) % 5
    inputs = patterns[targets] + 2 * noise
    module = fill(
        nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5),
        ),
        9,
    )  # fmt: skip
    steps = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(12):
        for start in range(0, 500, 50):
            part = slice(start, start + 50)
            steps.zero_grad()
            functional.cross_entropy(module(inputs[part]), targets[part]).backward()
            steps.step()
    return nce.Workload.from_module(module.eval(), inputs[:1]), inputs, targets


def lost_answers(ran, inputs, targets, neurons):
    """Share of images whose answer one flipped bit of a stored output loses, over all bits."""
    layers, found, kept = list(ran.network.layers), [], {}

    def keep(layer, _, output):
        kept[layer.name] = output.clone()
        return output

    bits = ran.format.bits
    with torch.inference_mode():
        right = forward(ran, ran.images(inputs), hook=keep).flatten(1).argmax(1) == targets
        for place, layer in enumerate(layers):
            for neuron in neurons.get(layer.name, ()):
                variants = []
                for bit in range(bits):
                    outputs = kept[layer.name].clone()
                    flat = outputs.flatten(1).clone()
                    words = ran.format.encode(flat[:, neuron].float().numpy()) ^ np.uint32(1 << bit)
                    flat[:, neuron] = torch.from_numpy(ran.format.decode(words)).to(flat.dtype)
                    variants.append(flat.reshape(outputs.shape))
                ends = forward(ran, torch.cat(variants), layers[place + 1 :]).flatten(1)
                wrong = (ends.argmax(1) != targets.repeat(bits)) | ~ends.isfinite().all(1)
                found.append(float((wrong & right.repeat(bits)).float().mean()))
    return np.array(found)


@pytest.mark.parametrize("form", FORMATS)
def test_the_ranking_knows_which_flips_lose_answers(form):
    """Against every flip of every bit of some neurons: better than LRP, which knows no flips."""
    net, inputs, targets = taught()
    ran = prepare(net, PRECISION_OF_FORMAT[form], calibration=nce.calibrate(net, inputs[:500]))
    draw = np.random.default_rng(5)
    chosen = {
        layer.name: draw.choice(layer.outputs, 40, replace=False)
        for layer in net.neuron_layers[:-1]
    }
    truth = lost_answers(ran, inputs[500:], targets[500:], chosen)
    always = {layer.name: 1.0 for layer in net.neuron_layers}
    flips = LaneDamage(fault(), "any", ran, always, changes_of(nce.BitFlip(), WIDTH[form]), {})

    def correlation(method, **options):
        found = nce.rank(net, inputs[:500], targets[:500], method, **options).relevance
        mine = np.concatenate([found[name].ravel()[places] for name, places in chosen.items()])
        return spearmanr(mine, truth).statistic

    aware = correlation("fault-aware", fault=flips)
    assert aware > 0.85
    assert aware > correlation("lrp") + 0.1
    assert abs(correlation("random")) < 0.3


def test_the_papers_faults_score_as_ever():
    """Their own formulas on one backward pass, to the bit."""
    means = nce.mean_activation(network(), images(8))
    for name, seen in sensitivities(count=8).items():
        change = seen.output * seen.slope
        assert torch.equal(nce.Dropout(0.25).damage(seen), change.square() * 0.25)
        assert torch.equal(
            nce.GaussianNoise(2.0, means).damage(seen),
            seen.slope.square() * (2.0 * means[name]) ** 2,
        )


def test_what_is_not_known_is_refused_by_name():
    cases = (
        ({"site": "weight"}, "unprotected.weight: expected damage is known for"),
        ({"site": "column"}, "unprotected.column"),
        ({"effect": nce.Gaussian(1.0, {})}, "GaussianNoise"),
        ({"effect": nce.BitFlip(count=2, adjacent=False)}, "adjacent"),
        ({"effect": nce.BitFlip(bit=16)}, "at most 15"),
        ({"site": "lane", "given_machine": machine(unprotected__array__scheme="tmr")}, "tmr"),
    )
    for options, message in cases:
        with pytest.raises(nce.InputError, match=message):
            expected(**options)
    in_ppes = nce.Fault(nce.Site("protected", "output"), nce.Transient(1e-6), nce.BitFlip())
    with pytest.raises(nce.InputError, match=r"protected\.output: expected damage"):
        nce.expected_damage(in_ppes, network(), machine())
    with pytest.raises(nce.InputError, match="takes a Fault"):
        nce.expected_damage(nce.Dropout(0.5), network(), machine())
    with pytest.raises(nce.InputError, match="needs a calibration"):
        nce.expected_damage(fault(), network(), machine(number_format="int8"))
    clips = machine(unprotected__array__clip=True)
    with pytest.raises(nce.InputError, match="clip"):
        nce.expected_damage(fault("lane"), network(), clips)


def test_lanes_that_clip_hold_what_sums_become():
    clips = machine(unprotected__array__clip=True)
    model = expected(given_machine=clips, site="lane")
    for name, seen in sensitivities().items():
        low, high = model.ranges[name]
        words = LayerWords.sums(model.executable, seen, (low, high))
        before = words.values(words.bits.clone())
        for displacement in words.displaced(model.changes):
            after = before + displacement
            assert ((after >= low - 1e-3) & (after <= high + 1e-3)).all()


def test_the_origin_says_the_fault_in_words(tmp_path):
    ranking = nce.rank(network(), images(4), labels(4), "fault-aware", fault=expected())
    ranking.save(tmp_path / "flips.npz")
    loaded = nce.Ranking.load(tmp_path / "flips.npz", network())
    assert loaded.origin.fault == "unprotected.output: transient (rate 1e-06), flip, on test"
    dead = nce.Permanent(nce.Elements(count=3))
    assert str(expected(site="lane", process=dead, effect=nce.StuckAt(value=1))) == (
        "unprotected.lane: permanent (elements count 3), stuck (value 1), on test"
    )


def test_the_command_line_names_faults():
    for text, where, message in (
        ("flip=1e-7", {}, "--machine"),
        ("flip", {}, "--fault must be"),
        ("burst=2", {}, "--fault must be"),
        ("dropout=0.5", {"machine": "nce-28nm"}, "leave --machine"),
    ):
        with pytest.raises(nce.InputError, match=message):
            AskedFault(text, **where)
    data = nce.Dataset("some", "part", images(4), labels(4))
    with pytest.raises(nce.InputError, match="whole number of lanes"):
        AskedFault("dead-lanes=1.5", "nce-28nm").on(network(), data, "cpu")
    flips = AskedFault("flip=1e-7", "nce-int8", "unprotected.lane").on(network(), data, "cpu")
    assert str(flips.fault.site) == "unprotected.lane"
    assert flips.fault.process == nce.Transient(1e-7)
    dead = AskedFault("dead-lanes=4", "nce-28nm").on(network(), data, "cpu")
    assert set(dead.chances.values()) == {4 / 256}
