"""How long inferences take whose waves run again: each is simulated with its own repeats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.inject import InjectionResult
from nce_sim.faults.table import Counts
from nce_sim.machine.engine import Run, run_program
from nce_sim.machine.executions import Executions
from nce_sim.schedule.domains import DOMAINS
from nce_sim.schedule.program import Program, Share
from nce_sim.schedule.retry import repeat


@dataclass(frozen=True)
class Latencies:
    """Latency and energy of every inference of a campaign, retries included.

    `cycles` and `energy_pj` have one entry an inference; `worst_cycles` is that of a run in which
    every wave that can be repeated is.
    """

    cycles: Counts
    energy_pj: NDArray[np.float64]
    nominal_cycles: int
    nominal_energy_pj: float
    worst_cycles: int
    clock_mhz: float

    @cached_property
    def mean_us(self) -> float:
        """Mean latency in microseconds."""
        return float(self.cycles.mean()) / self.clock_mhz

    @cached_property
    def p99_us(self) -> float:
        """The latency that 99 % of the inferences do not exceed, in microseconds."""
        return float(np.quantile(self.cycles, 0.99, method="higher")) / self.clock_mhz

    @property
    def most_us(self) -> float:
        """The longest latency that was seen, in microseconds."""
        return float(self.cycles.max()) / self.clock_mhz

    @property
    def worst_us(self) -> float:
        """The latency if every wave that can be repeated is, in microseconds."""
        return self.worst_cycles / self.clock_mhz

    def summary(self) -> dict[str, float]:
        """Return the figures as plain data, units in the names."""
        return {
            "latency_us": self.nominal_cycles / self.clock_mhz,
            "latency_mean_us": self.mean_us,
            "latency_p99_us": self.p99_us,
            "latency_most_us": self.most_us,
            "latency_worst_us": self.worst_us,
            "energy_uj": self.nominal_energy_pj / 1e6,
            "energy_mean_uj": float(self.energy_pj.mean()) / 1e6,
        }


def latencies(run: Run, result: InjectionResult) -> Latencies:
    """Simulate every inference of a campaign on `run`'s machine with the waves it repeated.

    Inferences that repeat the same waves are simulated once.
    """
    realisations, images = result.due.shape
    cycles = np.full(realisations * images, run.latency_cycles)
    energy = np.full(realisations * images, run.energy.total_pj)
    inference = result.waves[:, 0] * images + result.waves[:, 1]
    known: dict[bytes, Run] = {}
    for place in np.unique(inference):
        waves = result.waves[inference == place, 2:]
        key = waves.tobytes()
        if key not in known:
            known[key] = run_program(run.machine, with_repeats(run, waves))
        cycles[place] = known[key].latency_cycles
        energy[place] = known[key].energy.total_pj
    worst = run_program(run.machine, with_repeats(run, _all_waves(run)))
    return Latencies(
        cycles, energy, run.latency_cycles, run.energy.total_pj, worst.latency_cycles,
        run.machine.config.clock_mhz,
    )  # fmt: skip


def _all_waves(run: Run) -> Counts:
    """Return every wave that its array's scheme could repeat."""
    rows = [np.empty((0, 2), np.int64)]
    for number, array in enumerate(DOMAINS):
        executions = run.schedule.executions[array]
        ends = np.unique(executions.last_range)
        rows.append(np.stack([np.full(len(ends), number), ends], axis=1))
    return np.concatenate(rows)


def with_repeats(run: Run, waves: Counts) -> Program:
    """Return a run's program with waves repeated: (array's place in DOMAINS, execution) each."""
    layers = list(run.program.layers)
    for number, array in enumerate(DOMAINS):
        executions = run.schedule.executions[array]
        mine = waves[waves[:, 0] == number, 1]
        for work in np.unique(executions.work[mine]).tolist():
            of_work = mine[executions.work[mine] == work]
            layers[work] = replace(
                layers[work], shares=_repeated(layers[work].shares, array, executions, of_work)
            )
    return replace(run.program, layers=tuple(layers))


def _repeated(
    shares: Sequence[Share], array: str, executions: Executions, waves: Counts
) -> tuple[Share, ...]:
    """Return the shares of a layer with the waves of one array repeated."""
    found, place = [], 0
    for share in shares:
        if share.array != array:
            found.append(share)
            continue
        mine = waves[executions.share[waves] == place]
        place += 1
        if share.plan is None or not len(mine) or not _retries(share):
            found.append(share)
            continue
        mismatches = np.zeros((1, *share.plan.neurons.shape), bool)
        wave = executions.window[mine], executions.group[mine], executions.chunk[mine]
        mismatches[0, *wave] = True
        found.append(repeat(share, mismatches))
    return tuple(found)


def _retries(share: Share) -> bool:
    assert share.plan is not None
    return share.plan.array.scheme.retries


def worst_latency_us(run: Run) -> float:
    """Return the latency if every wave that can be repeated is, in microseconds."""
    worst = run_program(run.machine, with_repeats(run, _all_waves(run)))
    return worst.latency_cycles / run.machine.config.clock_mhz
