"""The paper's fault models: exact probabilities, nesting, addresses of the random numbers."""

import itertools
import struct
from fractions import Fraction
from hashlib import sha256
from math import cos, log, pi, sin, sqrt

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.stats import binom, kstest, norm
from small_networks import all_convolutional, images, labels, with_pooling

import nce_sim as nce
from nce_sim.faults.block_draws import (
    PAIRS,
    BlockDraws,
    Scratch,
    places_of,
    standard_normals,
)
from nce_sim.faults.injection import Injector
from nce_sim.seeding import RandomRow, philox, uniforms_at
from nce_sim.workload.execute import prepare
from nce_sim.workload.layout import by_position, from_position, restore_shape, rows_by_position

P_VALUE = 1e-6
"""Chance that a statistical test of this file fails although all is right."""


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), torch.zeros(1, 2, 12, 12))


@pytest.fixture(scope="module")
def draws(network):
    return BlockDraws(prepare(network, "float32"), seed=1, realisation=0, images=range(200))


@pytest.mark.parametrize("p", [0.0001, 0.003, 0.1, 0.3, 0.3333, 0.5, 0.77, 0.997, 0.9999])
def test_hits_are_bernoulli_with_exactly_p(draws, p):
    hits = draws.hits(p)
    count, successes = hits.numel(), int(hits.sum())
    assert binom.cdf(successes, count, p) > P_VALUE / 2
    assert binom.sf(successes - 1, count, p) > P_VALUE / 2


def test_no_hits_at_zero_and_all_at_one(draws):
    assert not draws.hits(0.0).any()
    assert draws.hits(1.0).all()


def test_faults_nest_over_probabilities(draws):
    levels = [0.0, 0.001, 0.1, 0.1001, 0.25, 0.5, 0.7, 0.9999, 1.0]
    for smaller, larger in itertools.pairwise(levels):
        assert not (draws.hits(smaller) & ~draws.hits(larger)).any()


@pytest.mark.parametrize("p", [0.0, 0.001, 0.1, 0.25, 0.5, 0.77, 0.999, 1.0])
def test_hits_are_those_of_a_slow_obvious_computation(network, p):
    """Neuron by neuron, in exact fractions: hit if byte/256 < p, a tie by a fresh number."""
    drawn = BlockDraws(prepare(network, "float32"), 5, 2, [3, 8])
    hits = drawn.hits(p)
    for row, image in enumerate([3, 8]):
        drawn_bytes = key_stream(f"5/dropout/2/{image}", network.neurons)
        key = int(philox(5, "dropout tie", 2, image).random_raw())
        for neuron in range(network.neurons):
            excess = 256 * Fraction(p) - drawn_bytes[neuron]
            hit = excess >= 1 or (excess > 0 and split_mix(key, neuron) < excess)
            assert bool(hits[row, neuron]) == hit


def key_stream(name, count):
    """AES of 0, 1, 2, ... one block at a time, keyed by the hash of the row's name."""
    key = sha256(name.encode()).digest()[:16]
    encrypt = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = (encrypt.update(place.to_bytes(16, "big")) for place in range(-(-count // 16)))
    return b"".join(blocks)[:count]


def split_mix(key, place):
    """Output number `place` of SplitMix64 from the state `key`, as a fraction of 53 bits."""
    state = (key + (place + 1) * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return Fraction((state ^ state >> 31) >> 11, 2**53)


@pytest.mark.parametrize("count", [1, 7, 2 * PAIRS + 3, 4 * PAIRS])
def test_normals_are_those_of_a_slow_obvious_computation(count):
    fast = standard_normals(4, "test", count, 1).tolist()
    pairs = -(-count // 2)
    words = struct.unpack(f"<{2 * pairs}i", key_stream("4/test/1", 8 * pairs))
    first, second = words[::2], words[1::2]
    for place in {0, count // 2 - 1, count // 2, count - 1} & set(range(count)):
        pair = place % pairs
        radius = sqrt(-2 * log(min(1, (abs(first[pair]) + 0.5) / 2**31)))
        turn = (cos, sin)[place // pairs](pi * second[pair] / 2**31)
        assert fast[place] == pytest.approx(radius * turn, abs=2e-6)


def test_draws_may_share_memory_one_after_another(network):
    executable, scratch = prepare(network, "float32"), Scratch()
    for images_of_block in ([0, 1, 2], [4, 5], [6, 7, 8, 9]):
        sharing = BlockDraws(executable, 3, 0, images_of_block, scratch)
        alone = BlockDraws(executable, 3, 0, images_of_block)
        for p in (0.1, 0.7):
            assert torch.equal(sharing.hits(p), alone.hits(p))
        assert torch.equal(sharing.normals, alone.normals)


def test_places_of_a_value_are_found_in_rows_of_any_length():
    random = np.random.default_rng(1)
    for length in (1, 7, 8, 9, 1000):
        row = random.integers(0, 4, length, np.uint8)
        assert np.array_equal(places_of(row, 2), np.flatnonzero(row == 2))


def test_draws_belong_to_the_image_and_not_to_its_block(network):
    executable = prepare(network, "float32")
    together = BlockDraws(executable, 3, 0, range(10))
    alone = BlockDraws(executable, 3, 0, [7])
    assert torch.equal(together.hits(0.3)[7], alone.hits(0.3)[0])
    assert torch.equal(together.normals[7], alone.normals[0])


def test_seed_and_realisation_change_the_draws(network):
    executable = prepare(network, "float32")
    base = BlockDraws(executable, 3, 0, [0]).hits(0.5)
    for seed, realisation in ((4, 0), (3, 1)):
        other = BlockDraws(executable, seed, realisation, [0]).hits(0.5)
        assert 0.4 < float((base == other).float().mean()) < 0.6


def test_normals_follow_the_normal_distribution():
    sample = standard_normals(0, "test", 200_000, 1, 2)
    assert kstest(sample, norm.cdf).pvalue > P_VALUE
    assert abs(sample).max() < 6.7
    halves = np.corrcoef(sample[:100_000], sample[100_000:])[0, 1]
    assert abs(halves) < norm.isf(P_VALUE / 2) / np.sqrt(100_000)


def test_an_odd_number_of_normals_is_a_prefix():
    assert len(standard_normals(0, "test", 7)) == 7


def test_uniform_hash_is_uniform():
    sample = uniforms_at(12345, np.arange(100_000))
    assert kstest(sample, "uniform").pvalue > P_VALUE
    assert sample.min() >= 0
    assert sample.max() < 1


def test_rows_are_addressed_by_name_and_counters():
    rows = {
        random_bytes(16, *place)
        for place in ((1, "a", 2, 3), (1, "a", 3, 2), (1, "b", 2, 3), (2, "a", 2, 3), (1, "a", 2))
    }
    assert len(rows) == 5
    with pytest.raises(ValueError, match="at most three"):
        philox(1, "a", 1, 2, 3, 4)


def test_a_row_of_bytes_goes_on_where_it_stopped():
    whole = random_bytes(200_000, 1, "a", 2)
    assert whole == key_stream("1/a/2", 200_000)
    row, parts = RandomRow(1, "a", 2), []
    for count in (1, 15, 16, 70_000, 129_968):
        part = np.empty(count, np.uint8)
        row.fill(part)
        parts.append(part)
    assert np.concatenate(parts).tobytes() == whole


def random_bytes(count, *place):
    drawn = np.empty(count, np.uint8)
    RandomRow(*place).fill(drawn)
    return drawn.tobytes()


def apply(network, split, fault, output, layer_name, image=0):
    executable = prepare(network, "float32")
    injector = Injector(executable, split, fault)
    layer = next(each for each in network.layers if each.name == layer_name)
    return injector.hook(BlockDraws(executable, 0, 0, [image]))(layer, output, output.clone())


def test_dropout_zeroes_unprotected_neurons_only(network):
    split = nce.rank(network, None, None, "random").split(0.5)
    output = torch.rand(1, 6, 12, 12).contiguous(memory_format=torch.channels_last) + 1
    faulty = apply(network, split, nce.Dropout(1.0), output, "conv1")
    unprotected = torch.from_numpy(split.unprotected["conv1"])
    assert (faulty[0][unprotected] == 0).all()
    assert torch.equal(faulty[0][~unprotected], output[0][~unprotected])
    assert torch.equal(apply(network, split, nce.Dropout(0.0), output, "conv1"), output)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_dropout_strikes_just_the_drawn_neurons(network, precision, layout):
    executable = prepare(network, precision)
    layer = network.neuron_layers[1]
    split = nce.rank(network, None, None, "random").split(0.5)
    draws = BlockDraws(executable, 0, 0, range(50))
    output = torch.rand(50, *layer.out_shape).to(executable.dtype) + 1
    hook = Injector(executable, split, nce.Dropout(0.3)).hook(draws)
    faulty = hook(layer, output, output.clone(memory_format=layout))
    start = network.offsets[layer.name]
    hits = draws.hits(0.3)[:, start : start + layer.neurons]
    height, width = layer.out_shape[1:]
    hits = hits.view(50, height, width, layer.channels).permute(0, 3, 1, 2)
    unprotected = torch.from_numpy(split.unprotected[layer.name])
    assert torch.equal(faulty, torch.where(hits & unprotected, 0, output))


def test_noise_has_the_layers_deviation_and_spares_protected_neurons(network):
    means = {layer.name: 1.0 + number for number, layer in enumerate(network.neuron_layers)}
    split = nce.rank(network, None, None, "random").split(0.5)
    output = torch.zeros(1, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    noise = torch.cat(
        [
            apply(network, split, nce.GaussianNoise(3.0, means), output, "conv2", image)
            for image in range(60)
        ]
    )
    unprotected = torch.from_numpy(split.unprotected["conv2"])
    assert (noise[:, ~unprotected] == 0).all()
    struck = noise[:, unprotected].numpy().ravel()
    assert kstest(struck, norm(0, 3.0 * means["conv2"]).cdf).pvalue > P_VALUE


def test_faults_nest_over_splits(network):
    ranking = nce.rank(network, None, None, "random")
    output = torch.ones(1, 6, 12, 12).contiguous(memory_format=torch.channels_last)
    zeros = [
        apply(network, ranking.split(fraction), nce.Dropout(0.5), output, "conv1") == 0
        for fraction in (0.2, 0.6, 1.0)
    ]
    assert not (zeros[0] & ~zeros[1]).any()
    assert not (zeros[1] & ~zeros[2]).any()


def test_order_of_neurons_is_restored():
    output = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert torch.equal(restore_shape(rows_by_position(output), output), output)
    assert rows_by_position(output)[0, :2].tolist() == [0.0, 12.0]
    flat = by_position(output[0].numpy() > 7).numpy().astype(float)
    assert np.array_equal(from_position(flat, (2, 3, 4)) > 0, output[0].numpy() > 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nce.Dropout(1.5), "0 to 1"),
        (lambda: nce.Dropout(float("nan")), "nan"),
        (lambda: nce.GaussianNoise(-1.0, {}), "at least 0"),
        (lambda: nce.GaussianNoise(1.0, {"conv1": float("inf")}), "conv1"),
    ],
)
def test_impossible_faults_are_refused(make, message):
    with pytest.raises(nce.InputError, match=message):
        make()


def test_split_of_another_network_and_missing_means_are_refused(network):
    other = nce.Workload.from_module(with_pooling(), torch.zeros(1, 2, 12, 12))
    split = nce.rank(other, None, None, "random").split(0.5)
    with pytest.raises(nce.InputError, match="another network"):
        nce.evaluate(network, images(2), labels(2), split, nce.Dropout(0.5))
    own = nce.rank(network, None, None, "random").split(0.5)
    with pytest.raises(nce.InputError, match="mean_activation lacks"):
        nce.evaluate(network, images(2), labels(2), own, nce.GaussianNoise(1.0, {}))
