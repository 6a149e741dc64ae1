"""What codes make of strikes on memories, and which upsets stay for later inferences."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import one_thread
from test_corruption import Strike, case, check, struck, table

from nce_sim.faults import corruption
from nce_sim.faults.codes import Words, decoded, left_by_scrubbing
from nce_sim.faults.effects import BitFlip, Change
from nce_sim.faults.mission import Mission
from nce_sim.faults.processes import Fault, Single, Transient
from nce_sim.faults.sites import Site
from nce_sim.faults.strikes import Strikes
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.protection.words import decode
from nce_sim.schedule.domains import UNPROTECTED

FOREVER = 2**62


_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)


def coded(scheme, *sites):
    changes = {"protected__buffers__scheme": scheme, "memory__protected_scheme": scheme}
    return case("int8, all stays" if "resident" in sites else "int8", **changes)


def came(here, strikes):
    """What the strikes make of an inference."""
    return struck(here, strikes)[2][0]


def without_code(here, strikes):
    """The same on the same machine, as if its memories had no code."""
    none = MEMORY_SCHEMES["none"]
    with patch.object(corruption, "_scheme", lambda *_: none):
        return came(here, strikes)


def nothing_changes(here, strikes):
    runner, values, _ = struck(here, strikes)
    return all(torch.equal(values[name], clean) for name, clean in runner.values.items())


def pair(here, component, domain="protected"):
    """A holding, two of its words in one code word, and the cycle in which both are there."""
    storage = here.schedule.storage
    for holding in storage.held(component, domain).holdings:
        foreign = storage.is_foreign(holding)
        if holding.length < 2 or foreign[:2].any():
            continue
        bits = holding.bits(np.arange(2), storage.width)
        if bits[0] // 64 != bits[1] // 64:
            continue
        start = holding.start
        if holding.words == "outputs":
            start = int(storage.written(holding)[:2].max())
        if start < min(holding.end, here.schedule.latency_cycles):
            yield holding, bits.tolist(), start


def is_read_from(here, component, holding, bit, start):
    """Whether anybody reads a word of the code word around a bit from a cycle on."""
    bits = holding.bits(np.arange(min(8, holding.length)), here.schedule.storage.width).tolist()
    return any(
        without_code(here, [Strike(component, "protected", each, start, flip=1)]).words
        for each in bits
        if each // 64 == bit // 64
    )


SITES = ("weight_buffer", "input_buffer", "output_buffer", "resident", "memory")


@pytest.mark.parametrize("component", SITES)
def test_secded_corrects_one_flip_and_two_in_one_word_are_due(component):
    here, found = coded("secded", component), 0
    for holding, bits, start in list(pair(here, component))[:3]:
        one = Strike(component, "protected", bits[0] + 1, start, flip=4)
        other = Strike(component, "protected", bits[1], start, flip=1)
        arrivals = came(here, [one])
        assert (arrivals.words, arrivals.detected) == (0, False)
        assert nothing_changes(here, [one])
        for strikes in ([one, other], [replace(one, flip=6)]):
            arrivals = came(here, strikes)
            assert arrivals.words == 0
            assert arrivals.detected == is_read_from(here, component, holding, bits[0], start)
            found += arrivals.detected
        assert not came(here, [one, one]).detected  # the same bit twice is right again
    assert found


@pytest.mark.parametrize("component", ["weight_buffer", "input_buffer"])
def test_two_flips_are_due_only_if_somebody_reads_the_word_after_both(component):
    here, found = coded("secded"), set()
    for holding, bits, start in list(pair(here, component))[:12]:
        one = Strike(component, "protected", bits[0], start, flip=1)
        for later in {start + 1, (start + holding.end) // 2, holding.end - 1} - {start}:
            if later > start:
                both = [one, Strike(component, "protected", bits[1], later, flip=1)]
                detected = came(here, both).detected
                assert detected == is_read_from(here, component, holding, bits[0], later)
                found.add(detected)
    assert found == {True, False}


@pytest.mark.parametrize("component", SITES)
def test_parity_detects_odd_flips_and_hands_on_even_ones(component):
    here, changed = coded("parity", component), 0
    for holding, bits, start in list(pair(here, component))[:3]:
        one = Strike(component, "protected", bits[0], start, flip=1)
        arrivals = came(here, [one])
        assert arrivals.words == 0
        assert arrivals.detected == is_read_from(here, component, holding, bits[0], start)
        for strikes in ([replace(one, flip=3)], [one, replace(one, bit=bits[1])]):
            arrivals = came(here, strikes)
            assert not arrivals.detected
            assert arrivals.words == without_code(here, strikes).words
            changed += check(here, strikes)
    assert changed


def test_an_ideal_code_corrects_everything():
    here = case("int8", memory__protected_scheme="ideal")
    for _, bits, start in list(pair(here, "memory"))[:3]:
        strikes = [Strike("memory", "protected", bit, start, flip=255) for bit in bits]
        assert without_code(here, strikes).words
        assert came(here, strikes).words == 0
        assert not came(here, strikes).detected


def test_unprotected_data_in_a_protected_buffer_have_no_code():
    here = case("int8, overflow, systolic", protected__buffers__scheme="secded")
    storage, seen = here.schedule.storage, set()
    for component in ("input_buffer", "weight_buffer", "output_buffer"):
        for holding in storage.held(component, "protected").holdings:
            work = here.run.program.layers[holding.work]
            share = next(
                share for share in work.on("protected")
                if any(t is work.tiles("protected")[holding.tiles[0]] for t in share.tiles)
            )  # fmt: skip
            source = storage.operands(holding.work)[0].work
            foreign = np.full(holding.length, share.domain == UNPROTECTED)
            if component == "input_buffer":
                places = storage.places_of(holding)
                foreign = np.zeros(holding.length, bool) if source is None else (
                    storage.stored_by(here.run.program.layers[source], UNPROTECTED)[places]
                )  # fmt: skip
            for number in {0, holding.length // 2, holding.length - 1}:
                bit = int(holding.bits(np.array([number]), storage.width)[0])
                start = holding.start
                if component == "output_buffer":
                    start = int(storage.written(holding)[number])
                strike = Strike(component, "protected", bit, start, flip=1)
                words = came(here, [strike]).words
                if start < holding.end:
                    assert not words or foreign[number]
                    seen.add((component, bool(foreign[number]), bool(words)))
                    if words:
                        check(here, [strike])
    for component in ("input_buffer", "weight_buffer", "output_buffer"):
        assert (component, True, True) in seen
        assert (component, False, False) in seen


def test_the_unprotected_buffers_may_have_a_code_of_their_own():
    here = case("int8", unprotected__buffers__scheme="secded")
    storage = here.schedule.storage
    for holding in storage.held("input_buffer", "unprotected").holdings[:6]:
        strike = Strike("input_buffer", "unprotected", holding.base, holding.start, flip=1)
        assert came(here, [strike]).words == 0


def test_the_protection_map_has_the_code_of_the_protected_buffers():
    here = coded("secded")
    storage = here.schedule.storage
    start = storage.start_of(1) - 1
    one = Strike("protection_map", None, 5, start, flip=1)
    assert came(here, [one]).words == 0
    assert not came(here, [one]).detected
    assert came(here, [one, replace(one, bit=63)]).detected
    assert not came(here, [one, replace(one, bit=64)]).detected
    last = here.run.latency_cycles - 1
    late = [replace(each, start=last) for each in (one, replace(one, bit=63))]
    assert not came(here, late).detected


def flips(words, width, moment):
    """The bits that are wrong in a cycle, by all words given."""
    wrong = set()
    for number, since, until, flip in zip(
        words.number.tolist(), words.since.tolist(), words.until.tolist(),
        words.change.flip.tolist(), strict=True,
    ):  # fmt: skip
        if since <= moment < until:
            wrong ^= {number * width + bit for bit in range(width) if flip >> bit & 1}
    return wrong


@given(
    st.sampled_from(["none", "parity", "secded", "ideal"]),
    st.sampled_from([8, 16, 32]),
    st.lists(
        st.tuples(st.integers(0, 19), st.integers(0, 9), st.booleans(), st.integers(1, 9),
                  st.integers(1, 7), st.integers(0, 31)),
        max_size=7,
    ),
    st.sets(st.integers(0, 19)),
)  # fmt: skip
def test_codes_see_what_has_struck_a_word_by_the_time_of_reading(scheme, width, drawn, silent):
    code = MEMORY_SCHEMES[scheme]
    number, since, lasts, length, mask, shift = np.array(drawn, np.int64).reshape(-1, 6).T
    flip = (mask << (shift % width)) & (2**width - 1)
    until = np.where(lasts, since + length, FOREVER)
    change = replace(Change.nothing(len(drawn)), flip=flip.astype(np.uint32))
    words = Words(number, since, until, change)
    asked = []

    def read(word, first, last):
        asked.append((word, first, last))
        return word not in silent

    if scheme == "none":
        return
    found, detected = decoded(code, words, np.arange(20) * width, width, read)
    cries = False
    for moment in range(20):
        struck_now, wrong = flips(words, width, moment), flips(found, width, moment)
        expected = set()
        for group in range(20 * width // 64 + 1):
            mine = [bit - 64 * group for bit in struck_now if bit // 64 == group]
            verdict = decode(code, mine)
            held = {n for n in range(20) if n * width // 64 == group}
            if verdict.detected:
                cries |= bool(held - silent)
            else:
                expected |= {64 * group + bit for bit in verdict.wrong}
        assert wrong == {bit for bit in expected if bit < 20 * width}
    assert detected == cries


def by_inference(strikes):
    class Replay:
        def of(self, fault, realisation, inference, again):
            return table(strikes[inference]) if inference in strikes else Strikes.none()

    return Replay()


def transient(component, domain, process=None):
    return Fault(Site(domain, component), process or Transient(1e-9), BitFlip())


def weight_words(here, domain):
    """Holdings of weights in external memory, and the bit of one that somebody reads late."""
    storage = here.schedule.storage
    return [each for each in storage.memory[domain] if each.words == "weights"]


def test_upsets_of_weights_in_external_memory_stay_and_those_of_maps_do_not():
    here = case("int8")
    latency = here.schedule.latency_cycles
    weights = weight_words(here, "unprotected")[-1]
    memory = here.schedule.storage.memory["unprotected"]
    spilled = next(each for each in memory if each.words == "outputs")
    written = int(here.schedule.storage.written(spilled)[0])
    strikes = {
        1: [
            Strike("memory", "unprotected", weights.base, latency - 1, flip=2),
            Strike("memory", "unprotected", spilled.base, written, flip=2),
        ],
        3: [Strike("memory", "unprotected", weights.base + 8, 0, flip=1)],
    }
    mission = Mission(
        here.schedule, [transient("memory", "unprotected")], replay=by_inference(strikes)
    )
    found = [mission.arrivals(0, inference).own for inference in range(6)]
    assert [len(each) for each in found] == [0, 1, 1, 2, 2, 2]
    assert found[1].kind.tolist() != found[2].kind.tolist()  # the map, then the weight
    assert (found[2].since == 0).all()
    backwards = Mission(
        here.schedule, [transient("memory", "unprotected")], replay=by_inference(strikes)
    )
    for inference in (5, 0, 4, 2, 3, 1):
        for realisation in (0, 1, 0):
            again = backwards.arrivals(realisation, inference).own
            for name in ("work", "kind", "place", "since", "until"):
                assert np.array_equal(getattr(again, name), getattr(found[inference], name))
    single = Mission(
        here.schedule, [transient("memory", "unprotected", Single())], replay=by_inference(strikes)
    )
    assert [len(single.arrivals(0, inference).own) for inference in range(6)] == [0, 1, 0, 1, 0, 0]


def detections(interval, strikes, inferences):
    changes = {"memory__protected_scheme": "secded"}
    if interval:
        changes["memory__scrub_interval_cycles"] = interval
    here = case("int8", **changes)
    fault = [transient("memory", "protected")]
    mission = Mission(here.schedule, fault, replay=by_inference(strikes))
    return [mission.arrivals(0, inference).detected for inference in range(inferences)]


def test_scrubbing_removes_what_the_code_can_correct_before_a_second_upset_comes():
    here = case("int8", memory__protected_scheme="secded")
    latency, interval = here.schedule.latency_cycles, 1_000_000
    one = Strike("memory", "protected", 0, 0, flip=1)
    other = replace(one, bit=8)
    scrubbed = interval // latency + 1  # the first inference that begins after a scrub
    late = {0: [one], scrubbed: [other]}
    count = scrubbed + 3
    assert detections(None, late, count) == [False] * scrubbed + [True] * 3
    assert detections(interval, late, count) == [False] * count
    together = {0: [one], 2: [other]}
    assert detections(interval, together, count) == [False] * 2 + [True] * (count - 2)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 400)), max_size=8))
def test_scrubbing_against_a_memory_that_is_scrubbed_step_by_step(drawn):
    """Words of 8 bits; each strike flips the lowest bit of the word around its bit."""
    bits, cycles = np.array(drawn, np.int64).reshape(-1, 2).T
    change = replace(Change.nothing(len(bits)), flip=np.ones(len(bits), np.uint32))
    secded = MEMORY_SCHEMES["secded"]
    left = left_by_scrubbing(secded, bits * 8, cycles, change, 8, 50, 401)
    there: set[int] = set()
    for cycle in range(402):
        if cycle % 50 == 0:
            for group in range(6):
                mine = [n for n in there if bits[n] * 8 // 64 == group]
                verdict = decode(secded, [int(bits[n] * 8) % 64 for n in mine])
                if not verdict.wrong and not verdict.detected:
                    there -= set(mine)
        there |= {n for n in range(len(bits)) if cycles[n] == cycle}
    assert set(np.flatnonzero(left).tolist()) == there
    assert left_by_scrubbing(MEMORY_SCHEMES["parity"], bits, cycles, change, 8, 50, 401).all()
