"""The split: exact numbers, nesting, ties, coarser units, blocks, whole waves.

Scores are dyadic and few, so that ties are exact and frequent.
"""

from fractions import Fraction
from itertools import groupby
from math import floor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nce_sim.errors import InputError
from nce_sim.resilience.ranking import Origin, Ranking
from nce_sim.resilience.split import Alignment, Split

fractions = st.floats(0, 1, allow_nan=False)
blocks = st.tuples(st.integers(1, 4), st.integers(1, 4))
alignments = st.builds(Alignment, rows=st.integers(1, 5), window=st.integers(1, 9))
units = st.one_of(
    st.sampled_from([{"granularity": name} for name in ("neuron", "channel", "layer", "block")]),
    st.builds(lambda block: {"granularity": "block", "block": block}, blocks),
)
kinds = st.one_of(units, st.builds(lambda align: {"align": align}, alignments))


def ranking_of(**relevance):
    origin = Origin("lrp", "test", "", "", 1, None, "float32", None)
    return Ranking(origin, {name: np.array(values) for name, values in relevance.items()}, {})


@st.composite
def rankings(draw):
    """Rankings of small networks with many ties and zeros."""
    layers = {}
    for number in range(draw(st.integers(1, 3))):
        maps = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
        shape = draw(st.one_of(maps, maps, st.tuples(st.integers(1, 20))))
        size = int(np.prod(shape))
        values = draw(
            st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=size, max_size=size)
        )
        layers[f"layer{number}"] = np.array(values).reshape(shape)
    return ranking_of(**layers)


def flat(split):
    return np.concatenate([mask.ravel() for mask in split.unprotected.values()])


def scores(ranking):
    return np.concatenate([values.ravel() for values in ranking.relevance.values()])


def limit(ranking, fraction):
    return floor(fraction * ranking.neurons + 0.5)


def unit_of(layer, index, shape, granularity="neuron", block=(4, 4)):
    """Name the unit of a neuron; the names rise as the units come in the network."""
    channel, *position = index
    if granularity == "layer":
        return (layer,)
    if granularity == "channel":
        return (layer, channel)
    if granularity == "block":
        if not position:
            return (layer, channel // (block[0] * block[1]))
        return (layer, channel, position[0] // block[0], position[1] // block[1])
    return (layer, *index)


def slow_units(ranking, **kind):
    """Return the units as lists of neurons, in the order of the network."""
    found, neuron = {}, 0
    for layer, values in enumerate(ranking.relevance.values()):
        for index in np.ndindex(values.shape):
            found.setdefault(unit_of(layer, index, values.shape, **kind), []).append(neuron)
            neuron += 1
    return [found[name] for name in sorted(found)]


def slow_windows(ranking, window):
    """Return the windows of each channel as lists of neurons, in the order of the network."""
    found, neuron = [], 0
    for values in ranking.relevance.values():
        channels = len(values) if values.ndim == 3 else 1
        for _ in range(channels):
            end = neuron + values.size // channels
            found += [
                list(range(start, min(start + window, end))) for start in range(neuron, end, window)
            ]
            neuron = end
    return found


def slow_runs(ranking, align):
    """Return the runs, as lists of neurons, in the order of the network."""
    relevance, found = scores(ranking), []
    for window in slow_windows(ranking, align.window):
        rising = sorted(window, key=lambda neuron: (relevance[neuron], -neuron))
        runs = [rising[start : start + align.rows] for start in range(0, len(rising), align.rows)]
        found += runs[::-1]
    return found


def slow_choice(ranking, candidates, fraction):
    """Take whole units in the order of their exact means until one does not fit."""
    relevance, room = scores(ranking), limit(ranking, fraction)
    unprotected = np.zeros(ranking.neurons, bool)

    def resilience(number):
        unit = candidates[number]
        return sum(Fraction(relevance[neuron]) for neuron in unit) / len(unit), -number

    for number in sorted(range(len(candidates)), key=resilience):
        room -= len(candidates[number])
        if room < 0:
            break
        unprotected[candidates[number]] = True
    return unprotected


@given(rankings(), fractions)
def test_exactly_the_rounded_number_of_neurons_is_unprotected(ranking, fraction):
    split = ranking.split(fraction)
    assert split.unprotected_neurons == limit(ranking, fraction)


@given(rankings(), fractions)
def test_no_unprotected_neuron_is_less_resilient_than_a_protected_one(ranking, fraction):
    unprotected, relevance = flat(ranking.split(fraction)), scores(ranking)
    if unprotected.any() and not unprotected.all():
        assert relevance[unprotected].max() <= relevance[~unprotected].min()


@given(rankings())
def test_places_are_the_inverse_of_the_order(ranking):
    places = np.concatenate([place.ravel() for place in ranking.places.values()])
    assert places[ranking.order].tolist() == list(range(ranking.neurons))
    assert [place.shape for place in ranking.places.values()] == [
        values.shape for values in ranking.relevance.values()
    ]


@given(rankings(), fractions, fractions, kinds)
def test_splits_are_nested(ranking, one, other, kind):
    smaller, larger = (flat(ranking.split(fraction, **kind)) for fraction in sorted((one, other)))
    assert not (smaller & ~larger).any()


@given(rankings(), fractions, units)
def test_coarse_units_stay_whole_and_fill_the_asked_share(ranking, fraction, kind):
    split = ranking.split(fraction, **kind)
    unprotected, found = flat(split), slow_units(ranking, **kind)
    assert all(len(set(unprotected[unit])) == 1 for unit in found)
    missing = limit(ranking, fraction) - split.unprotected_neurons
    assert 0 <= missing < max(len(unit) for unit in found)
    assert split.unprotected_fraction == unprotected.mean()
    assert split.asked_fraction == fraction


@given(rankings(), kinds)
def test_the_ends_protect_everything_and_nothing(ranking, kind):
    assert not flat(ranking.split(0, **kind)).any()
    assert flat(ranking.split(1, **kind)).all()


@given(rankings(), fractions, units)
def test_a_slow_choice_of_units_finds_the_same_split(ranking, fraction, kind):
    slow = slow_choice(ranking, slow_units(ranking, **kind), fraction)
    assert flat(ranking.split(fraction, **kind)).tolist() == slow.tolist()


@given(rankings(), fractions, alignments)
def test_a_slow_choice_of_runs_finds_the_same_aligned_split(ranking, fraction, align):
    slow = slow_choice(ranking, slow_runs(ranking, align), fraction)
    assert flat(ranking.split(fraction, align=align)).tolist() == slow.tolist()


@given(rankings(), fractions, alignments)
def test_an_aligned_split_fills_waves(ranking, fraction, align):
    split = ranking.split(fraction, align=align)
    unprotected = flat(split)
    for window in slow_windows(ranking, align.window):
        count = unprotected[window].sum()
        assert count % align.rows == 0 or count == len(window)
    assert 0 <= limit(ranking, fraction) - split.unprotected_neurons < align.rows


@given(rankings(), fractions, alignments)
def test_the_most_resilient_neurons_of_a_window_are_unprotected(ranking, fraction, align):
    unprotected = flat(ranking.split(fraction, align=align))
    for window in slow_windows(ranking, align.window):
        in_order = [neuron for neuron in ranking.order if neuron in window]
        marks = [mark for mark, _ in groupby(unprotected[in_order])]
        assert marks in ([False], [True], [False, True])


@given(st.sampled_from([0.1, 0.7, 1e300, 1 / 3]), fractions, alignments)
@example(0.1, 0.5, Alignment(rows=3, window=4))
def test_rounded_means_do_not_part_the_runs_of_a_window(value, fraction, align):
    """The mean of three times 0.1 is more than that of one: the short run must not go first."""
    ranking = ranking_of(conv1=np.full((2, 5, 7), value))
    unprotected = flat(ranking.split(fraction, align=align))
    for window in slow_windows(ranking, align.window):
        count = unprotected[window].sum()
        assert count % align.rows == 0 or count == len(window)
    assert 0 <= limit(ranking, fraction) - unprotected.sum() < align.rows


@given(rankings(), fractions, st.integers(1, 30))
def test_units_of_one_neuron_make_the_split_by_neuron(ranking, fraction, window):
    by_neuron = ranking.split(fraction).identity
    assert ranking.split(fraction, "block", block=(1, 1)).identity == by_neuron
    assert ranking.split(fraction, align=Alignment(1, window)).identity == by_neuron


def test_units_larger_than_a_map_make_the_split_by_channel():
    values = np.random.default_rng(1).integers(0, 9, (6, 3, 4)) / 8
    ranking = ranking_of(conv1=values)
    for fraction in np.linspace(0, 1, 25):
        by_channel = ranking.split(fraction, "channel").identity
        assert ranking.split(fraction, "block", block=(10**12, 4)).identity == by_channel
        assert ranking.split(fraction, align=Alignment(10**12, 10**12)).identity == by_channel


def test_of_equally_resilient_neurons_the_first_is_protected():
    ranking = ranking_of(fc1=np.zeros(4), fc2=np.zeros(2))
    assert flat(ranking.split(0.5)).tolist() == [False, False, False, True, True, True]


def test_of_equally_resilient_units_the_first_is_protected():
    ranking = ranking_of(conv1=np.zeros((1, 2, 4)))
    by_block = ranking.split(0.5, "block", block=(2, 2))
    assert flat(by_block).tolist() == 2 * [False, False, True, True]
    aligned = ranking.split(0.5, align=Alignment(rows=2, window=4))
    assert flat(aligned).tolist() == [False] * 4 + [True] * 4


def test_channels_are_ordered_by_relevance_for_each_neuron():
    ranking = ranking_of(conv1=np.full((1, 1, 2), 0.4), conv2=np.full((1, 3, 3), 0.1))
    split = ranking.split(0.9, "channel")
    assert split.unprotected["conv2"].all()
    assert not split.unprotected["conv1"].any()


def test_blocks_are_tiles_of_one_map_and_cut_at_its_border():
    values = np.ones((2, 3, 5))
    values[1, 2:, 4:] = 0  # the last block of the second map: one neuron
    values[0, :2, 2:4] = 0.5
    split = ranking_of(conv1=values).split(5 / 30, "block", block=(2, 2))
    expected = np.zeros((2, 3, 5), bool)
    expected[1, 2, 4] = True
    expected[0, :2, 2:4] = True
    assert (split.unprotected["conv1"] == expected).all()


def test_a_block_of_a_vector_is_rows_times_columns_features():
    split = ranking_of(fc1=[1.0] * 6 + [0.0] * 5).split(0.5, "block", block=(2, 3))
    assert split.unprotected["fc1"].tolist() == [False] * 6 + [True] * 5


def test_an_aligned_split_prefers_runs_with_a_low_mean():
    values = [[[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.5]]]
    split = ranking_of(conv1=values).split(0.5, align=Alignment(rows=2, window=4))
    assert flat(split).tolist() == [True, True, False, False, True, False, False, True]


@given(rankings(), fractions, units)
def test_the_map_has_a_bit_for_each_unit(ranking, fraction, kind):
    split = ranking.split(fraction, **kind)
    for name, values in ranking.relevance.items():
        alone = ranking_of(**{name: values})
        assert split.map_bits(name) == len(slow_units(alone, **kind))


@given(rankings(), fractions, alignments)
def test_the_map_of_an_aligned_split_has_a_bit_for_each_neuron(ranking, fraction, align):
    split = ranking.split(fraction, align=align)
    assert [split.map_bits(name) for name in ranking.relevance] == [
        values.size for values in ranking.relevance.values()
    ]


def test_splits_can_be_made_by_hand():
    masks = {"conv1": np.zeros((3, 5, 9), bool), "fc1": np.ones(33, bool)}
    bits = {
        granularity: [Split(0.5, granularity, masks).map_bits(name) for name in masks]
        for granularity in ("neuron", "block", "channel", "layer")
    }
    assert bits == {"neuron": [135, 33], "block": [18, 3], "channel": [3, 33], "layer": [1, 1]}
    assert Split(0.5, "block", masks, (5, 9)).map_bits("conv1") == 3
    with pytest.raises(InputError, match="no layer 'pool1' with neurons: there are conv1, fc1"):
        Split(0.5, "neuron", masks).map_bits("pool1")
    with pytest.raises(InputError, match="unknown granularity 'pixel'"):
        Split(0.5, "pixel", masks)


def test_a_split_says_what_its_units_are():
    ranking = ranking_of(conv1=np.zeros((1, 8, 8)))
    shares = "32 of 64 neurons unprotected (50.00%)"
    assert str(ranking.split(0.5)) == f"split by neuron: {shares}"
    assert str(ranking.split(0.5, "block")) == f"split by block of 4 x 4: {shares}"
    aligned = ranking.split(0.5, align=Alignment(8, 16))
    assert (
        str(aligned) == f"split by neuron, aligned to 8 rows in windows of 16 positions: {shares}"
    )


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None])
def test_a_fraction_outside_zero_to_one_is_refused(fraction):
    ranking = ranking_of(fc1=np.ones(4))
    for kind in ({}, {"granularity": "block"}, {"align": Alignment(2, 4)}):
        with pytest.raises(InputError, match="from 0 to 1"):
            ranking.split(fraction, **kind)


def test_an_unknown_granularity_is_refused():
    with pytest.raises(InputError, match="neuron, channel, layer, block"):
        ranking_of(fc1=np.ones(4)).split(0.5, "pixel")


@pytest.mark.parametrize(
    "block", [(0, 4), (4, -1), (4, 2.0), (4,), (4, 4, 4), 4, "44", (True, 4), (None, 4)]
)
def test_a_block_that_is_not_two_positive_whole_numbers_is_refused(block):
    with pytest.raises(InputError, match="block must be two positive whole numbers"):
        ranking_of(fc1=np.ones(4)).split(0.5, "block", block=block)


@pytest.mark.parametrize("size", [0, -1, 2.0, None, "4", True])
def test_an_alignment_of_anything_but_positive_whole_numbers_is_refused(size):
    with pytest.raises(InputError, match="rows must be a positive whole number"):
        Alignment(size, 64)
    with pytest.raises(InputError, match="window must be a positive whole number"):
        Alignment(16, size)


@pytest.mark.parametrize("granularity", ["neuron", "channel", "layer"])
def test_a_block_goes_with_its_granularity_only(granularity):
    with pytest.raises(InputError, match=f"granularity 'block', not with '{granularity}'"):
        ranking_of(fc1=np.ones(4)).split(0.5, granularity, block=(4, 4))


@pytest.mark.parametrize("granularity", ["block", "channel", "layer"])
def test_an_alignment_goes_with_single_neurons_only(granularity):
    with pytest.raises(InputError, match=f"granularity 'neuron', not with '{granularity}'"):
        ranking_of(fc1=np.ones(4)).split(0.5, granularity, align=Alignment(2, 4))
    with pytest.raises(InputError, match="align must be an Alignment, not 16"):
        ranking_of(fc1=np.ones(4)).split(0.5, align=16)
