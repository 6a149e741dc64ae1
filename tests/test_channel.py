"""A channel alone under synthetic traffic, against a twin that steps every cycle."""

from collections import defaultdict, deque
from dataclasses import dataclass, field

import pytest
import simpy
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.machine.channel import Channel

PORTS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Request:
    """`cycles` of a port, asked for at a time, or so long after request `after` was done."""

    port: str
    cycles: int
    at: int = 0
    after: int | None = None


@dataclass
class Log:
    """When each request was done, the port served in each cycle, and the intervals watched."""

    done: dict[int, int] = field(default_factory=dict)
    served: dict[int, str] = field(default_factory=dict)
    busy: int = 0
    order: list[int] = field(default_factory=list)
    """Requests in the order in which they came: two of one port may come in the same cycle."""
    watched: list[tuple[tuple[str, ...], int, int]] = field(default_factory=list)


def drive(requests, quantum, priority=False):
    """Let the channel serve the requests."""
    env, log = simpy.Environment(), Log()

    def watch(places, start, end):
        log.watched.append((tuple(PORTS[place] for place in places), start, end))

    channel = Channel(env, PORTS, quantum, priority, watch)
    done = [env.event() for _ in requests]

    def send(number, request):
        if request.after is not None:
            yield done[request.after]
        yield env.timeout(request.at)
        log.order.append(number)
        yield channel.request(request.port, request.cycles)
        log.done[number] = int(env.now)
        done[number].succeed()

    for number, request in enumerate(requests):
        env.process(send(number, request))
    env.run()
    log.busy = channel.traffic.busy_cycles
    return log


def step(requests, quantum, priority, order):
    """Serve the requests cycle by cycle: completions and arrivals, then at most one grant."""
    log, queues = Log(), defaultdict(deque)
    waiting = [number for number, request in enumerate(requests) if request.after is None]
    arrivals = defaultdict(list)
    for number in waiting:
        arrivals[requests[number].at].append(number)
    left = {number: request.cycles for number, request in enumerate(requests)}
    now = first = granted = 0
    serving = None
    while len(log.done) < len(requests):
        if serving is not None and (left[serving] == 0 or granted == 0):
            if left[serving] == 0:
                queues[requests[serving].port].popleft()
                log.done[serving] = now
                for number, request in enumerate(requests):
                    if request.after == serving:
                        arrivals[now + request.at].append(number)
            serving = None
        for number in sorted(arrivals.pop(now, []), key=order.index):
            queues[requests[number].port].append(number)
        if serving is None:
            turn = PORTS if priority else PORTS[first:] + PORTS[:first]
            chosen = next((port for port in turn if queues[port]), None)
            if chosen is not None:
                serving, granted = queues[chosen][0], quantum or 10**9
                first = (PORTS.index(chosen) + 1) % len(PORTS)
        if serving is not None:
            log.served[now] = requests[serving].port
            left[serving] -= 1
            granted -= 1
            log.busy += 1
        now += 1
    return log


@st.composite
def traffic(draw, length=10):
    """Draw requests at any time, some of which are set off by others."""
    requests = []
    for number in range(draw(st.integers(1, length))):
        after = draw(st.none() | st.integers(0, number - 1)) if number else None
        requests.append(
            Request(
                draw(st.sampled_from(PORTS)), draw(st.integers(1, 25)),
                draw(st.sampled_from([0, 0, 1, 2, 3, 5, 8, 20, 60])), after,
            )
        )  # fmt: skip
    return requests


quanta = st.one_of(st.none(), st.integers(1, 9))


@given(traffic(), quanta, st.booleans())
@examples(250)
def test_every_transfer_ends_when_the_stepped_twin_says(requests, quantum, priority):
    found = drive(requests, quantum, priority)
    expected = step(requests, quantum, priority, found.order)
    assert found.done == expected.done
    assert found.busy == expected.busy == sum(request.cycles for request in requests)


@given(traffic(), quanta, st.booleans())
@examples(80)
def test_watched_intervals_are_the_busy_cycles_with_the_ports_that_are_served(
    requests, quantum, priority
):
    found = drive(requests, quantum, priority)
    expected = step(requests, quantum, priority, found.order)
    ports = {}
    for served, start, end in found.watched:
        assert start < end
        for cycle in range(start, end):
            assert cycle not in ports
            ports[cycle] = served
    assert set(ports) == set(expected.served)
    assert all(expected.served[cycle] in served for cycle, served in ports.items())


@given(traffic(), quanta, st.booleans())
@examples(30)
def test_the_same_traffic_gives_the_same_log(requests, quantum, priority):
    assert drive(requests, quantum, priority) == drive(requests, quantum, priority)


def test_ports_take_turns_a_quantum_at_a_time():
    log = drive([Request(port, 3) for port in "abc"], 1)
    assert log.done == {0: 7, 1: 8, 2: 9}


def test_a_late_small_transfer_waits_for_one_quantum_of_each_other_port_at_most():
    log = drive([Request("a", 1000), Request("b", 1000), Request("c", 5, at=3)], 10)
    assert log.done[2] <= 3 + 2 * 10 + 5


def test_transfers_of_one_port_are_served_in_order():
    assert drive([Request("a", 3), Request("a", 1)], 1).done == {0: 3, 1: 4}


def test_by_priority_the_first_port_is_served_before_all_others_but_breaks_no_grant():
    log = drive([Request("b", 20), Request("c", 1), Request("a", 5, at=7)], 4, priority=True)
    assert log.done == {0: 25, 1: 26, 2: 13}  # b's second grant ends at 8


def test_without_a_quantum_a_transfer_is_never_broken():
    log = drive([Request("b", 100), Request("a", 1, at=1), Request("c", 1, at=1)], None)
    assert log.done == {0: 100, 2: 101, 1: 102}


def test_what_a_completion_sets_off_in_its_cycle_takes_part_in_the_next_grant():
    requests = [Request("b", 4), Request("b", 4, after=0), Request("a", 4, after=0)]
    assert drive(requests, 4).done == {0: 4, 2: 8, 1: 12}  # it is a's turn


def test_it_takes_part_even_if_other_work_of_the_cycle_comes_first():
    env, log = simpy.Environment(), []
    channel = Channel(env, ("a", "b"), 4)

    def again(port, steps):
        yield first
        for _ in range(steps):
            yield env.timeout(0)
        yield channel.request(port, 4)
        log.append((port, env.now))

    first = channel.request("b", 4)
    env.process(again("b", 0))
    env.process(again("a", 5))
    env.run()
    assert log == [("a", 8), ("b", 12)]


@given(st.integers(1, 40), st.integers(1, 5))
@examples(30)
def test_ports_that_always_ask_get_equal_shares(quantum, rounds):
    log = drive([Request(port, quantum * rounds) for port in PORTS], quantum)
    assert list(log.done.values()) == [quantum * (4 * rounds - 3 + turn) for turn in range(4)]


@pytest.mark.parametrize("quantum", [1, 7, None])
def test_a_lone_transfer_takes_its_own_cycles_and_no_event_for_each_quantum(quantum):
    env = simpy.Environment()
    channel = Channel(env, PORTS, quantum)
    channel.request("c", 10**6)
    steps = 0
    while env.peek() < float("inf"):
        env.step()
        steps += 1
    assert env.now == channel.traffic.busy_cycles == 10**6
    assert steps < 10


def test_bytes_are_counted_by_purpose():
    channel = Channel(simpy.Environment(), PORTS)
    for purpose, size in [("weights", 8), ("inputs", 3), ("weights", 1)]:
        channel.traffic.add(purpose, size)
    assert channel.traffic.bytes_by_purpose == {"weights": 9, "inputs": 3}
