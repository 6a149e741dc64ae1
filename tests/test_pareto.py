"""Fronts and volumes against slow twins: all pairs, inclusion and exclusion, and chance."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nce_sim.errors import InputError
from nce_sim.seeding import generator
from nce_sim.study.pareto import hypervolume, non_dominated, objectives_of

FEW_LEVELS = st.integers(0, 4).map(float)
"""Coarse numbers, so that points often tie in an objective, or in all."""


def tables(most_points, objectives):
    return objectives.flatmap(
        lambda columns: st.integers(0, most_points).flatmap(
            lambda points: arrays(np.float64, (points, columns), elements=FEW_LEVELS)
        )
    )


def dominates(first, second):
    return all(first <= second) and any(first < second)


@given(tables(12, st.integers(1, 5)))
def test_front_is_that_of_all_pairs(values):
    slow = [not any(dominates(other, point) for other in values) for point in values]
    assert non_dominated(values).tolist() == slow


@given(tables(10, st.integers(2, 4)), st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    assert non_dominated(values[order]).tolist() == non_dominated(values)[order].tolist()


def test_equal_points_all_stay():
    values = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0], [0.0, 3.0]])
    assert non_dominated(values).tolist() == [True, True, False, True]


def union_of_boxes(values, corner):
    """Return the volume by inclusion and exclusion over the boxes from each point to the corner."""
    total = 0.0
    for size in range(1, len(values) + 1):
        for chosen in combinations(values, size):
            sides = np.maximum(corner - np.max(chosen, axis=0), 0)
            total += (-1) ** (size + 1) * float(np.prod(sides))
    return total


@settings(max_examples=150, deadline=None)
@given(tables(7, st.integers(2, 4)))
def test_volume_is_that_of_the_union_of_boxes(values):
    corner = np.full(values.shape[1], 3.5)
    assert hypervolume(values, corner) == pytest.approx(union_of_boxes(values, corner), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(tables(9, st.integers(2, 4)), st.integers(0, 8))
def test_volume_grows_with_points_and_not_with_dominated_ones(values, which):
    corner = np.full(values.shape[1], 5.0)
    whole = hypervolume(values, corner)
    fewer = values[np.arange(len(values)) != which]
    assert hypervolume(values[non_dominated(values)], corner) == pytest.approx(whole)
    assert hypervolume(fewer, corner) <= whole + 1e-9


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_volume_of_many_points_is_what_chance_finds(objectives):
    draw = generator(0, "test of the hypervolume", objectives)
    values = draw.random((60, objectives))
    darts = draw.random((20_000, objectives))
    hit = (values[None] <= darts[:, None]).all(axis=2).any(axis=1).mean()
    volume = hypervolume(values, np.ones(objectives))
    assert abs(hit - volume) < 4 * np.sqrt(volume * (1 - volume) / len(darts))


def test_volume_of_one_point_and_of_none():
    assert hypervolume(np.array([[1.0, 2.0, 3.0]]), (2, 4, 6)) == 6
    assert hypervolume(np.array([[1.0, 2.0, 6.0]]), (2, 4, 6)) == 0
    assert hypervolume(np.zeros((0, 3)), (2, 4, 6)) == 0


def test_bad_tables_and_corners_are_refused():
    with pytest.raises(InputError, match="2 to 4 objectives, not 5"):
        hypervolume(np.zeros((1, 5)), [1] * 5)
    with pytest.raises(InputError, match="one finite number for each of the 2"):
        hypervolume(np.zeros((1, 2)), (1, 2, 3))
    with pytest.raises(InputError, match="not finite"):
        non_dominated(np.array([[np.nan, 1.0]]))
    with pytest.raises(InputError, match="points x objectives"):
        non_dominated(np.zeros(3))


def test_rows_give_the_objectives_they_hold():
    rows = [
        {"accuracy": 0.75, "energy_uj": 2.0, "method": "lrp"},
        {"accuracy": None, "energy_uj": 1.0},
        {"accuracy": 1.0, "energy_uj": 3},
    ]
    found = objectives_of(rows)
    assert found.names == ("lost_accuracy", "energy_uj")
    assert found.points == (0, 2)
    assert found.values.tolist() == [[0.25, 2.0], [0.0, 3.0]]
    assert objectives_of([{"latency_us": 1.5}]).names == ("latency_us",)
    with pytest.raises(InputError, match="none of accuracy, energy_uj"):
        objectives_of([{"method": "lrp"}])
