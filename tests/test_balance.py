"""Overflow of waves to idle PPEs, and columns fused by layer, against exhaustive search."""

from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from hardware import (
    arrays,
    chains,
    changed,
    conv,
    convolutions,
    examples,
    fused,
    linear,
    machine,
    machines,
    patient,
    random_mask,
    random_masks,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from nce_sim.config.machine_schema import ArrayConfig, FabricConfig
from nce_sim.errors import InputError
from nce_sim.schedule.balance import fuse_by_layer, overflow
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.program import build_program
from nce_sim.schedule.waves import Array, plan_waves


def built(layers, hardware, masks, batch=1):
    try:
        return build_program(layers, hardware.config, masks, batch=batch)
    except InputError:
        assume(False)
        raise


def array_cycles(work, array, batch):
    """Return the compute cycles of one array in a layer, all images together."""
    return sum(
        share.plan.total_cycles * (1 if share.plan.image_rows else batch)
        for share in work.on(array)
        if share.plan is not None
    )


def slower(work, batch):
    return max(array_cycles(work, array, batch) for array in DOMAINS)


def members(plan, first, last):
    """Mark the channels of a plan's groups first to last."""
    return plan.channel_order[first * plan.group_size : last * plan.group_size]


def search(mask, plan, busy, plan_on_ppes):
    """Try every number of groups from the last on; return the best, the fewest of equals."""
    groups = plan.neurons.shape[1]
    by_group = plan.cycles.sum(axis=(0, 2))
    best, least = None, plan.total_cycles
    for first in reversed(range(groups)):
        taken = np.zeros_like(mask)
        taken[members(plan, first, groups)] = mask[members(plan, first, groups)]
        if not taken.any():
            continue
        reached = max(int(by_group[:first].sum()), busy + plan_on_ppes(taken).total_cycles)
        if reached < least:
            best, least = taken, reached
    return best, least


@given(
    st.one_of(convolutions(), st.builds(linear, st.just("fc"), st.just("input"),
                                        st.integers(1, 9), st.integers(1, 60))),
    st.integers(0, 2**32), arrays(), arrays(), st.sampled_from(["broadcast", "systolic_os"]),
)  # fmt: skip
@examples(150)
def test_overflow_takes_as_many_groups_as_lower_the_slower_arrays_cycles(
    layer, seed, pes, ppes, dataflow
):
    mask = random_mask(layer.out_shape, seed)
    mask.flat[0] = True
    on_pes, on_ppes = (
        Array.create(ArrayConfig.model_validate(config), dataflow, 0) for config in (pes, ppes)
    )
    plan_on_ppes = partial(plan_waves, layer, array=on_ppes)
    plan, own = plan_waves(layer, mask, on_pes), plan_on_ppes(~mask)
    busy = own.total_cycles if own is not None else 0
    expected, least = search(mask, plan, busy, plan_on_ppes)
    found = overflow(mask, plan, own, plan_on_ppes)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (mask | ~found).all(), "only unprotected neurons are taken"
    groups = [members(plan, g, g + 1) for g in range(plan.neurons.shape[1])]
    whole = [mask[each].any() and (found[each] == mask[each]).all() for each in groups]
    left = sum(int(plan.cycles[:, g].sum()) for g, taken in enumerate(whole) if not taken)
    assert max(left, busy + plan_on_ppes(found).total_cycles) == least


def test_without_unprotected_neurons_nothing_overflows():
    layer = conv(inputs=(1, 4, 4), channels=4)
    array = Array.create(
        ArrayConfig.model_validate(machine().config.protected.array), "broadcast", 0
    )
    own = plan_waves(layer, np.ones(layer.out_shape, bool), array)
    nothing = np.zeros(layer.out_shape, bool)
    assert overflow(nothing, None, own, partial(plan_waves, layer, array=array)) is None


def test_idle_ppes_take_half_of_what_equal_pes_do():
    layers = (conv(inputs=(1, 4, 4), channels=16),)
    masks = {"conv1": np.ones(layers[0].out_shape, bool)}
    plain, balanced = (
        build_program(layers, machine(overflow=chosen).config, masks).layers[0]
        for chosen in (False, True)
    )
    assert slower(balanced, 1) * 2 == slower(plain, 1)
    taken = balanced.on("protected")[1]
    assert (taken.array, taken.domain) == ("protected", "unprotected")
    assert taken.elements == 8 * 16


def test_a_systolic_array_with_groups_without_neurons_overflows_too():
    layers = (conv(inputs=(1, 4, 4), channels=12),)
    masks = {"conv1": np.zeros(layers[0].out_shape, bool)}
    masks["conv1"][:8] = True  # the last group of four columns is the protected domain's alone
    config = machine(overflow=True, dataflow="systolic_os").config
    work = build_program(layers, config, masks).layers[0]
    assert sum(share.elements for share in work.shares) == layers[0].neurons


def lanes(draw):
    """Draw sizes of both arrays."""
    sizes = {"rows": 5, "columns": 5, "activation_words": 8, "weight_words": 8}
    return {
        f"{domain}__array__{name}": draw(st.integers(1, most))
        for domain in DOMAINS
        for name, most in sizes.items()
    }


ROOMY = {
    f"{domain}__buffers__{name}_bytes": 4000
    for domain in DOMAINS
    for name in ("input", "weight", "output")
}


@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 2**32), st.integers(2, 8), st.data())
@examples(60)
def test_overflow_of_a_batch_counts_plans_of_all_images_and_of_one_alike(
    inputs, outputs, seed, batch, data
):
    layers = (linear("fc", "input", inputs, outputs),)
    masks, sizes = random_masks(layers, seed), lanes(data.draw)
    plain, balanced = (
        build_program(layers, machine(overflow=chosen, **sizes, **ROOMY).config, masks, batch=batch)
        for chosen in (False, True)
    )
    assert slower(balanced.layers[0], batch) <= slower(plain.layers[0], batch)


@given(chains(), machines(), st.integers(0, 2**32), st.integers(1, 3))
@patient(25)
def test_overflow_never_makes_the_slower_array_slower(layers, hardware, seed, batch):
    hardware = changed(hardware, overflow=True)
    if hardware.config.fabric is not None:
        hardware = changed(hardware, fabric__fuse_per_layer=False)
    masks = random_masks(layers, seed)
    plain = built(layers, changed(hardware, overflow=False), masks, batch)
    balanced = built(layers, hardware, masks, batch)
    for before, after in zip(plain.layers, balanced.layers, strict=True):
        assert slower(after, batch) <= slower(before, batch)
        if after.on_array:
            unprotected = masks[after.layer.name]
            for share in after.shares:
                inside = unprotected if share.domain == "unprotected" else ~unprotected
                assert (inside | ~share.mask).all()
                assert share.array == share.domain or share.array == "protected"
            assert (sum(share.mask.astype(int) for share in after.shares) == 1).all()


def fabric(**changes):
    return FabricConfig.model_validate({**fused().config.fabric.model_dump(), **changes})


def cheapest(costs, start, switch_cycles):
    """Try every choice for every layer: least cycles, then fewest switches, then least fused."""
    found = []
    for path in product(range(1, len(costs[0]) + 1), repeat=len(costs)):
        switches = sum(before != after for before, after in pairwise((start, *path)))
        cycles = sum(by_fused[fused - 1] for by_fused, fused in zip(costs, path, strict=True))
        found.append((cycles + switches * switch_cycles, switches, path))
    return min(found)


@given(
    st.integers(1, 4), st.sampled_from([0, 0, 1, 5, 20]), st.integers(1, 4), st.data(),
)  # fmt: skip
@examples(150)
def test_fusing_by_layer_is_the_best_of_all_ways(layer_count, switch_cycles, most, data):
    made_of = fabric(
        columns=2 * most + 1, scheme="dmr_retry", switch_cycles=switch_cycles,
        clusters=data.draw(st.integers(1, most)),
    )  # fmt: skip
    assert made_of.most_clusters == most
    each = st.lists(st.integers(0, 12), min_size=most, max_size=most)
    costs = data.draw(st.lists(each, min_size=layer_count, max_size=layer_count))
    layers = [conv(f"conv{n}", inputs=(1, 2, 2), channels=1) for n in range(layer_count)]
    by_name = dict(zip([layer.name for layer in layers], costs, strict=True))

    def cycles(layer, arrays):
        return by_name[layer.name][arrays["protected"].columns - 1]

    found = fuse_by_layer(layers, made_of, cycles)
    path = tuple(found[layer.name]["protected"].columns for layer in layers)
    assert path == cheapest(costs, made_of.clusters, switch_cycles)[2]
    for layer, number in zip(layers, path, strict=True):
        assert found[layer.name] == made_of.arrays(number)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 2**32),
    st.sampled_from([0, 20, 50, 100]), st.integers(1, 3),
)  # fmt: skip
@examples(40)
def test_a_program_fuses_for_the_least_cycles_of_its_whole_batch(channels, seed, switch, batch):
    layers, source, shape = (), "input", (2, 4, 4)
    for number, count in enumerate(channels):
        layers += (conv(f"conv{number}", source, inputs=shape, channels=count),)
        source, shape = layers[-1].name, layers[-1].out_shape
    masks = random_masks(layers, seed)
    hardware = fused(fabric__switch_cycles=switch, fabric__clusters=2, **ROOMY)
    costs = []
    for clusters in range(1, hardware.config.fabric.most_clusters + 1):
        still = changed(hardware, fabric__fuse_per_layer=False, fabric__clusters=clusters)
        works = built(layers, still, masks, batch).layers
        costs.append([slower(work, batch) for work in works if work.on_array])
    works = [work for work in built(layers, hardware, masks, batch).layers if work.on_array]
    path = [work.arrays["protected"].columns for work in works]
    expected = cheapest(list(zip(*costs, strict=True)), 2, switch)
    reached = sum(slower(work, batch) for work in works)
    switches = sum(before != after for before, after in pairwise([2, *path]))
    assert (reached + switch * switches, switches) == expected[:2]
    assert [work.switches for work in works] == [a != b for a, b in pairwise([2, *path])]


def test_a_fabric_fused_anew_keeps_every_column_in_use():
    made_of = fabric(columns=10)
    assert made_of.most_clusters == 3
    for clusters in (1, 2, 3):
        both = made_of.arrays(clusters)
        assert both["protected"].columns == clusters
        assert both["protected"].scheme == "tmr"
        assert both["unprotected"].columns == 10 - 3 * clusters
        assert both["unprotected"].scheme == "none"


@pytest.mark.parametrize("anew", [False, True])
def test_only_a_fabric_that_may_change_does(anew):
    layers = (
        conv(inputs=(2, 4, 4), channels=8),
        conv("conv2", "conv1", inputs=(8, 4, 4), channels=8),
    )
    masks = {"conv1": np.ones((8, 4, 4), bool), "conv2": np.zeros((8, 4, 4), bool)}
    hardware = fused(fabric__fuse_per_layer=anew, fabric__clusters=1, fabric__switch_cycles=0)
    works = build_program(layers, hardware.config, masks).layers
    assert [work.switches for work in works] == [False, anew]
    assert (works[0].arrays == works[1].arrays) != anew
