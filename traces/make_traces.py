"""Make the bundled traces: what the CSV files of this folder hold is computed here.

    python traces/make_traces.py

Every trace lasts 80 ms, in which a network of some thousand neurons answers some thousand requests.
Each line holds its law's value at its own time. Nothing is drawn at random.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import exp
from pathlib import Path
from textwrap import fill

MISSION_MS = 80
CARD_WIDTH = 98
Row = tuple[float, ...]


def times_ms(step_ms: float) -> Iterator[float]:
    """Yield the times of the lines, from 0 to the end of the mission."""
    for step in range(round(MISSION_MS / step_ms)):
        yield step * step_ms


# A burst of radiation: a quiet time, a rise, an exponential decay.
BURST_STARTS_MS, BURST_RISES_MS, BURST_DECAYS_MS, BURST_PEAK = 20, 2, 8, 100


def radiation_burst() -> Iterator[Row]:
    """Yield time in s and factor of the rate."""
    for ms in times_ms(1):
        since = ms - BURST_STARTS_MS
        rising = min(max(since / BURST_RISES_MS, 0), 1)
        decay = exp(-max(since - BURST_RISES_MS, 0) / BURST_DECAYS_MS)
        yield ms / 1000, 1 + (BURST_PEAK - 1) * rising * decay


# Sags of a supply: (start in ms, length in ms, depth in V), each entered and left exponentially.
NOMINAL_V, SETTLING_MS = 0.60, 1.0
SAGS = ((10, 12, 0.045), (34, 16, 0.055), (62, 6, 0.052))
DROOP_ACCELERATION = 10_000


def voltage_droop() -> Iterator[Row]:
    """Yield time in s, supply in V and factor of the rate."""
    for ms in times_ms(0.5):
        sag = 0.0
        for start, length, depth in SAGS:
            entered = 1 - exp(-max(ms - start, 0) / SETTLING_MS)
            left = 1 - exp(-max(ms - start - length, 0) / SETTLING_MS)
            sag += depth * (entered - left)
        yield ms / 1000, NOMINAL_V - sag, DROOP_ACCELERATION


# A drive of 40 minutes in 80 ms: (end in ms, junction temperature in degrees C that it tends to).
START_C, THERMAL_MS = 28.0, 8.0
DRIVE = ((16, 45.0), (40, 75.0), (68, 112.0), (80, 60.0))
CITY_SWING_C, CITY_PERIOD_MS = 8.0, 6  # stop and go: half a period above, half below
REFERENCE_K, ACTIVATION_EV, BOLTZMANN_EV_PER_K = 328.15, 0.3, 8.617333262e-5


def temperature_cycling() -> Iterator[Row]:
    """Yield time in s, junction temperature in degrees C and factor of the rate."""
    junction_c = START_C
    for ms in times_ms(1):
        yield ms / 1000, junction_c, arrhenius(junction_c)
        target_c = next(target for end, target in DRIVE if ms < end)
        if DRIVE[0][0] <= ms < DRIVE[1][0]:
            moving = (ms - DRIVE[0][0]) % CITY_PERIOD_MS < CITY_PERIOD_MS / 2
            target_c += CITY_SWING_C if moving else -CITY_SWING_C
        junction_c = target_c + (junction_c - target_c) * exp(-1 / THERMAL_MS)


def arrhenius(junction_c: float) -> float:
    """Return the acceleration from 55 degrees C to `junction_c`."""
    kelvin = junction_c + 273.15
    return exp(ACTIVATION_EV / BOLTZMANN_EV_PER_K * (1 / REFERENCE_K - 1 / kelvin))


# Ageing: Weibull's law, five milliseconds a year.
MS_PER_YEAR, SCALE_YEARS, SHAPE = 5, 34.0, 3.0


def ageing() -> Iterator[Row]:
    """Yield time in s and share of PEs that are dead."""
    for ms in times_ms(1):
        yield ms / 1000, 1 - exp(-((ms / MS_PER_YEAR / SCALE_YEARS) ** SHAPE))


# A power cap: corners of the budget, (ms, mW); straight lines between them.
BUDGET = ((0, 230), (16, 230), (24, 175), (44, 175), (46, 150), (54, 150), (56, 175), (70, 230))


def power_cap() -> Iterator[Row]:
    """Yield time in s and budget in mW."""
    for ms in times_ms(1):
        yield ms / 1000, budget_mw(ms)


def budget_mw(ms: float) -> float:
    """Return the budget on the line between the corners around a time; the last corner holds."""
    for (start, low), (end, high) in pairwise(BUDGET):
        if start <= ms < end:
            return low + (high - low) * (ms - start) / (end - start)
    return BUDGET[-1][1]


CARDS = {
    "radiation-burst": """\
made-up burst of radiation: up to 100 times the rate of faults, then a slow decay

What it stands for: a spacecraft that meets a solar particle event. rate_factor scales the rate of
a transient fault from its time_s on; 1 is quiet.

Mechanism: upsets of registers and memories are independent and in proportion to the flux of
particles, so that the rate of faults rises and falls with the flux, everywhere at once. A chip
has no memory of the burst once its words are written again.

Law: 1 until 20 ms; then a straight rise to 100 in 2 ms; then 1 + 99 exp(-t / 8 ms).

Acceleration: time runs 2.2 million times faster than in space, 80 ms for two days. The rate of
faults is accelerated apart from this, by the scenario's own rate: at natural rates a buffer sees
one upset in years.

Where the figures come from: bursts of this kind last days. In October 1989 three events in about
six days gave 243 upsets in one memory of the satellite TDRS-1 (Croley et al., IEEE Transactions
on Nuclear Science 42(5), 1995). Assumed: the factor of 100, large enough to tell the burst from the
quiet; the shape; and that lanes of logic are struck as memories are. Nothing here was measured.""",
    "voltage-droop": """\
made-up sags of a near-threshold supply, 0.60 V down to 0.545 V, of 6 to 16 ms

What it stands for: PEs at 0.60 V, fed through a weak regulator from a battery that a radio or a
motor also loads. supply_v is the supply of the unprotected domain from its time_s on.

Mechanism: the load's current drops voltage over the resistance of battery and lines; the regulator
has no headroom left and its output sags with it. Paths through a lane become slower, and more of
them miss the clock: the voltage table of a scenario turns supply_v into a rate of faults, such as
hw_configs/voltage/28nm-near-threshold.yaml: at 400 MHz about 1e-17 per lane and cycle at 0.60 V,
2e-10 at 0.555 V, 5e-9 at 0.545 V.

Law: 0.60 V less three sags of 45, 55 and 52 mV, from 10, 34 and 62 ms on, 12, 16 and 6 ms long;
each is entered and left as 1 - exp(-t / 1 ms). rate_factor is 10,000 throughout.

Acceleration: none in time; the rate of faults is accelerated 10,000 times by rate_factor. Deeper
sags would need none (4e-7 at 0.53 V), but below 0.543 V the banks of the buffers no longer keep a
clock of 400 MHz. Droops of nanoseconds, by resonance of package and grid,
are far shorter than an inference: no policy could follow them, and they belong to the margin of
the clock.

Where the figures come from: 0.60 V is the supply of the machine nce-near-threshold. Assumed: the
depths, lengths and time constant; that the clock stays as it is; that buffers, which share the
supply, hold what was written (their cells begin to fail below 0.60 V, see docs/voltage.md).""",
    "temperature-cycling": """\
made-up drive of 40 minutes: start, city, motorway, stop; junction at 28 to 111 degrees C

What it stands for: a driver assistance computer behind a windscreen. temperature_c is that of the
junction, rate_factor scales the rate of a transient fault, both from their time_s on.

Mechanism: the junction follows its surroundings and load through the heat capacity of its
housing. Leakage grows with temperature (the technology table's leakage.doubling_k says how), and
so does the rate of faults, as margins of time and voltage shrink.

Law: first order with a time constant of 8 ms (4 minutes) from 28 degrees towards 45 (start, until
16 ms), 75 +- 8 in turns of 3 ms (city with stop and go, until 40 ms), 112 (motorway, until 68 ms)
and 60 (stop). rate_factor = exp(Ea / k (1/328.15 K - 1/T)), Arrhenius' law with Ea = 0.3 eV, so
that it is 1 at 55 degrees C.

Acceleration: time runs 30,000 times faster than in the car. Arrhenius' factor is 0.4 at 28 degrees
and 4.7 at 111. The rate itself is accelerated by the scenario.

Where the figures come from: Ea = 0.3 eV is that of IEC TR 62380:2004 for MOS circuits, which holds
for failures that last. Assumed: that transient faults follow the same law; all temperatures and
times. The start is no colder because technology tables give leakage from 300 K (27 degrees) on.""",
    "ageing": """\
made-up wear of the PEs over 16 years: up to a tenth of them dead at the end

What it stands for: a chip that is used until it is worn out and is not repaired. dead_share is
the share of PEs that no longer work from its time_s on; a PE that is dead stays dead.

Mechanism: electromigration, breakdown of oxides and slowed transistors kill one lane after the
other, each independently of the others. The rate of transient faults stays as it is.

Law: Weibull, dead_share = 1 - exp(-(years / 34)^3), five milliseconds a year.

Acceleration: time runs 6.3e9 times faster than in life, 80 ms for 16 years.

Where the figures come from: a shape above 1 is wear-out, a failure rate that grows with age.
Assumed: the shape of 3 and the scale of 34 years, which give 1 % after 7.3 years and 10 % after
16, far more than a product may lose, so that some thousand requests show it; and that all PEs age
alike, whatever they compute.""",
    "power-cap": """\
made-up budget of power that falls from 230 to 150 mW and rises again

What it stands for: an engine on a shared supply, such as that of a drone that climbs: others need
the power for a while. power_budget_mw is what the engine may draw from its time_s on. The rate of
faults stays as it is.

Mechanism: a power manager hands each consumer a budget and changes it as the needs of the others
change; it does not enforce it within milliseconds, and counts the time above it.

Law: straight lines between 230 mW until 16 ms, 175 from 24 to 44, 150 from 46 to 54, 175 at 56
and 230 from 70 ms on, in steps of 1 ms.

Acceleration: time runs about 1,000 times faster than in the air, 80 ms for 80 s. The rate of
faults is accelerated by the scenario's own rate.

Where the figures come from: assumed, all of them. The levels lie around what nce-28nm draws for
cnn-digits, split by channels, at 50,000 inferences per second, as simulated: 194 mW with all
neurons protected, 179 with two fifths, 155 with one fifth, 138 with none.""",
}

LAWS: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
    "radiation-burst": ("time_s,rate_factor", radiation_burst),
    "voltage-droop": ("time_s,supply_v,rate_factor", voltage_droop),
    "temperature-cycling": ("time_s,temperature_c,rate_factor", temperature_cycling),
    "ageing": ("time_s,dead_share", ageing),
    "power-cap": ("time_s,power_budget_mw", power_cap),
}


def text_of(name: str) -> str:
    """Return what a trace's file holds: its card as comments, the columns, the numbers."""
    header, law = LAWS[name]
    paragraphs = [fill(each, CARD_WIDTH) for each in CARDS[name].split("\n\n")]
    comments = [f"# {line}".rstrip() for line in "\n\n".join(paragraphs).split("\n")]
    lines = [",".join(f"{value:.6g}" for value in row) for row in law()]
    return "\n".join([*comments, header, *lines, ""])


if __name__ == "__main__":
    for name in LAWS:
        (Path(__file__).parent / f"{name}.csv").write_text(text_of(name), encoding="utf-8")
