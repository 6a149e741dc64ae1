"""The split: exact numbers, nesting, ties, coarser units."""

from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.errors import InputError
from nce_sim.resilience.ranking import Origin, Ranking

fractions = st.floats(0, 1, allow_nan=False)
granularities = st.sampled_from(["neuron", "channel", "layer"])


@st.composite
def rankings(draw):
    """Rankings of small networks with many ties and zeros."""
    layers = {}
    for number in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        values = draw(
            st.lists(
                st.sampled_from([0.0, 0.25, 0.5, 1.0]),
                min_size=int(np.prod(shape)), max_size=int(np.prod(shape)),
            )
        )  # fmt: skip
        layers[f"conv{number}"] = np.array(values).reshape(shape)
    origin = Origin("lrp", "test", "", "", 1, None, "float32", None)
    return Ranking(origin, layers, {})


def flat(split):
    return np.concatenate([mask.ravel() for mask in split.unprotected.values()])


def scores(ranking):
    return np.concatenate([values.ravel() for values in ranking.relevance.values()])


@given(rankings(), fractions)
def test_exactly_the_rounded_number_of_neurons_is_unprotected(ranking, fraction):
    split = ranking.split(fraction)
    assert split.unprotected_neurons == floor(fraction * ranking.neurons + 0.5)


@given(rankings(), fractions)
def test_no_unprotected_neuron_is_less_resilient_than_a_protected_one(ranking, fraction):
    unprotected, relevance = flat(ranking.split(fraction)), scores(ranking)
    if unprotected.any() and not unprotected.all():
        assert relevance[unprotected].max() <= relevance[~unprotected].min()


@given(rankings(), fractions, fractions, granularities)
def test_splits_are_nested(ranking, one, other, granularity):
    smaller, larger = (
        flat(ranking.split(fraction, granularity)) for fraction in sorted((one, other))
    )
    assert not (smaller & ~larger).any()


@given(rankings(), fractions, granularities)
def test_coarse_units_stay_whole_and_within_the_asked_share(ranking, fraction, granularity):
    split = ranking.split(fraction, granularity)
    assert split.unprotected_neurons <= floor(fraction * ranking.neurons + 0.5)
    for mask in split.unprotected.values():
        units = mask.reshape(len(mask) if granularity == "channel" else 1, -1)
        if granularity != "neuron":
            assert ((units.mean(axis=1) == 0) | (units.mean(axis=1) == 1)).all()


@given(rankings(), granularities)
def test_the_ends_protect_everything_and_nothing(ranking, granularity):
    assert not flat(ranking.split(0, granularity)).any()
    assert flat(ranking.split(1, granularity)).all()


def test_of_equally_resilient_neurons_the_first_is_protected():
    origin = Origin("lrp", "test", "", "", 1, None, "float32", None)
    ranking = Ranking(origin, {"fc1": np.zeros(4), "fc2": np.zeros(2)}, {})
    assert flat(ranking.split(0.5)).tolist() == [False, False, False, True, True, True]


def test_channels_are_ordered_by_relevance_for_each_neuron():
    origin = Origin("lrp", "test", "", "", 1, None, "float32", None)
    few, many = np.full((1, 1, 2), 0.4), np.full((1, 3, 3), 0.1)
    ranking = Ranking(origin, {"conv1": few, "conv2": many}, {})
    split = ranking.split(0.9, "channel")
    assert split.unprotected["conv2"].all()
    assert not split.unprotected["conv1"].any()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None])
def test_a_fraction_outside_zero_to_one_is_refused(fraction):
    origin = Origin("lrp", "test", "", "", 1, None, "float32", None)
    ranking = Ranking(origin, {"fc1": np.ones(4)}, {})
    with pytest.raises(InputError, match="from 0 to 1"):
        ranking.split(fraction)
    with pytest.raises(InputError, match="neuron, channel, layer"):
        ranking.split(0.5, "pixel")
