"""A test bench that drives one channel alone with synthetic traffic."""

from fractions import Fraction
from math import ceil

import pytest
import simpy
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.machine.channel import Channel, end_of_cycle


class Bench:
    """One channel and a log of what completed when."""

    def __init__(self, rate, quantum=16, ports=("a", "b", "c")):
        self.env = simpy.Environment()
        self.channel = Channel(self.env, "bus", Fraction(str(rate)), quantum, ports)
        self.log = []

    def send(self, port, size, *, at=0, limit=None, name=None):
        self.env.process(self._send(port, size, at, limit, name or port))

    def _send(self, port, size, at, limit, name):
        yield self.env.timeout(at)
        yield self.channel.request(port, name, size, limit)
        self.log.append((name, self.env.now))

    def run(self):
        self.env.run()
        return self.log


@pytest.mark.parametrize(
    ("size", "cycles"), [(0, 0), (1, 1), (8, 1), (9, 2), (16, 2), (17, 3), (160, 20)]
)
def test_a_lone_transfer_takes_its_bytes_over_the_rate_rounded_up(size, cycles):
    bench = Bench(8)
    bench.send("a", size)
    assert bench.run() == [("a", cycles)]
    assert bench.channel.traffic.busy_cycles == cycles


def test_ports_take_turns_a_quantum_at_a_time():
    bench = Bench(16, quantum=16)
    for port in "abc":
        bench.send(port, 48)
    assert bench.run() == [("a", 7), ("b", 8), ("c", 9)]


def test_a_late_small_transfer_waits_for_one_quantum_of_each_other_port_at_most():
    bench = Bench(1, quantum=10)
    bench.send("a", 1000)
    bench.send("b", 1000)
    bench.send("c", 5, at=3)
    done = dict(bench.run())
    assert done["c"] <= 3 + 2 * 10 + 5


def test_transfers_of_one_port_are_served_in_order():
    bench = Bench(4, quantum=4)
    bench.send("a", 12, name="first")
    bench.send("a", 4, name="second")
    assert bench.run() == [("first", 3), ("second", 4)]


def test_a_fraction_of_a_cycle_is_carried_to_the_next_quantum():
    bench = Bench(25.6, quantum=64)
    bench.send("a", 64 * 1000)
    assert bench.run() == [("a", 2500)]  # 64 bytes alone would take 3 cycles each


def test_a_fraction_is_carried_across_ports_and_transfers_while_the_channel_is_busy():
    bench = Bench(25.6, quantum=64)
    for number in range(100):
        bench.send("ab"[number % 2], 64, name=str(number))
    assert bench.run()[-1][1] == 250


def test_a_fraction_is_not_carried_over_an_idle_time():
    bench = Bench(10)
    bench.send("a", 1)
    bench.send("a", 10, at=5, name="later")
    assert bench.run() == [("a", 1), ("later", 6)]
    assert bench.channel.traffic.busy_cycles == 2


def test_the_slower_of_channel_and_transfer_limits_the_rate():
    for limit, cycles in [(Fraction(2), 16), (Fraction(100), 4), (None, 4)]:
        bench = Bench(8, quantum=8)
        bench.send("a", 32, limit=limit)
        assert bench.run() == [("a", cycles)]


def test_a_slow_transfer_holds_the_channel_for_its_own_quanta_only():
    bench = Bench(8, quantum=8)
    bench.send("a", 16, limit=Fraction(1))
    bench.send("b", 8)
    assert bench.run() == [("b", 9), ("a", 17)]


def test_what_a_completion_sets_off_in_its_cycle_takes_part_in_the_next_grant():
    bench = Bench(1, quantum=4, ports=("a", "b"))

    def set_off_by(done, steps, port):
        yield done
        for _ in range(steps):  # of bookkeeping within the cycle
            yield bench.env.timeout(0)
        yield bench.channel.request(port, f"{port} again", 4)
        bench.log.append((f"{port} again", bench.env.now))

    done = bench.channel.request("b", "b", 4)
    bench.env.process(set_off_by(done, 0, "b"))
    bench.env.process(set_off_by(done, 5, "a"))
    assert bench.run() == [("a again", 8), ("b again", 12)]  # it is a's turn


def test_the_end_of_a_cycle_comes_after_events_that_are_set_off_within_it():
    env, order = simpy.Environment(), []

    def late():
        yield end_of_cycle(env)
        order.append("end")

    def early():
        for step in range(3):
            yield env.timeout(0)
            order.append(step)

    env.process(late())
    env.process(early())
    env.run()
    assert order == [0, 1, 2, "end"]


traffic = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(0, 200), st.integers(0, 60),
        st.sampled_from([None, Fraction(1), Fraction("6.4"), Fraction(99)]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip
rates = st.sampled_from([1, 3, 6.4, 25.6, "0.7"])


def driven(rate, quantum, requests):
    bench = Bench(rate, quantum)
    for number, (port, size, at, limit) in enumerate(requests):
        bench.send(port, size, at=at, limit=limit, name=f"{port}{number}")
    return bench, bench.run()


@given(rates, st.integers(1, 64), traffic)
@examples(150)
def test_any_traffic_completes_in_the_time_that_its_bytes_need(rate, quantum, requests):
    bench, log = driven(rate, quantum, requests)
    assert len(log) == len(requests)
    width = Fraction(str(rate))
    needed = sum(
        size / (width if limit is None else min(width, limit)) for _, size, _, limit in requests
    )
    busy = bench.channel.traffic.busy_cycles
    assert ceil(needed) <= busy < needed + len(requests)
    assert busy <= bench.env.now <= max(at for _, _, at, _ in requests) + busy
    counted = bench.channel.traffic.bytes_by_purpose
    assert sum(counted.values()) == sum(size for _, size, _, _ in requests)


@given(rates, st.integers(1, 64), traffic)
@examples(50)
def test_the_same_traffic_gives_the_same_log(rate, quantum, requests):
    assert driven(rate, quantum, requests)[1] == driven(rate, quantum, requests)[1]


@given(st.integers(1, 40), st.integers(1, 5))
@examples(50)
def test_ports_that_always_ask_get_equal_shares(quantum, rounds):
    bench = Bench(1, quantum)
    for port in "abc":
        bench.send(port, quantum * rounds)
    assert [time for _, time in bench.run()] == [
        quantum * (3 * rounds - 2 + turn) for turn in range(3)
    ]


def test_the_counts_of_a_mixed_stream_are_the_stored_ones():
    """Worked out by hand: grants a 3, b 2 (3 of 1.5), a 1, c 5, b's rest 0.5 -> 1, at 2 a cycle."""
    bench = Bench(2, quantum=6, ports=("a", "b", "c"))
    bench.send("a", 8, name="weights")
    bench.send("b", 3, name="inputs")
    bench.send("c", 10, at=1, limit=Fraction(1), name="outputs")
    # a: 6 bytes, cycles 0-3; b: 3 bytes, 1.5 cycles, to 5 (half a cycle owed); c: 6 bytes at 1,
    # 6 cycles, to 11; a: 2 bytes, to 12; c: 4 bytes, to 16 less the half, rounded up: 16.
    assert bench.run() == [("inputs", 5), ("weights", 12), ("outputs", 16)]
    assert bench.channel.traffic.busy_cycles == 16
    assert bench.channel.traffic.bytes_by_purpose == {"weights": 8, "inputs": 3, "outputs": 10}
