"""A mission as series over its bins of time: what figures, tables and traces show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.statistics import clopper_pearson
from nce_sim.runtime.bins import TimeBins
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.lane_rate import LaneRate
from nce_sim.runtime.metering import MW_PER_AJ_MHZ
from nce_sim.runtime.mission import ESTIMATE_UNIT, MissionResult
from nce_sim.study.reconfiguration import Reconfiguration

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MissionSeries:
    """One float64 a bin, NaN where there is nothing to tell; `edges_s` has one more.

    `conditions` are those of the middle of each bin, `true_rate` the faults per lane and cycle that
    they mean. `estimate` is the monitor's, in mismatches per check, `estimated_rate` the rate at
    which the surface has so many under the split that worked most; NaN where that split leaves
    nothing to check. `fraction` is unprotected, the mean over the busy cycles. `accuracy` is the
    mean of the sliding windows that end in the bin, with the interval of one window. Split and
    accuracy stay what they were through bins in which no inference ends. `queue` is the mean number
    of requests that wait; `missed` counts deadlines.
    """

    edges_s: Values
    conditions: tuple[Conditions, ...]
    true_rate: Values
    estimate: Values
    estimated_rate: Values
    fraction: Values
    accuracy: Values
    accuracy_low: Values
    accuracy_high: Values
    power_mw: Values
    queue: Values
    answered: Values
    missed: Values
    changes: Values


def series_of(
    study: Reconfiguration, mission: MissionResult, most_bins: int | None = None
) -> MissionSeries:
    """Return the series of one mission of a study, in at most so many bins if a number is given."""
    bins = mission.bins if most_bins is None else coarser(mission.bins, most_bins)
    hertz = mission.clock_mhz * 1e6
    edges = np.append(bins.starts, max(bins.end_cycle, 1)) / hertz
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    conditions = tuple(study.environment.at(seconds) for seconds in middles)
    rate = LaneRate.of(study.scenario.faults, study.environment, mission.clock_mhz)
    busy = np.array([bins.sums[f"split {place}"] for place in range(len(study.grid.points))])
    estimate = bins.sums["estimate_cycles"] * ESTIMATE_UNIT / bins.cycles
    accuracy, low, high = _windows(study, bins)
    return MissionSeries(
        edges_s=edges,
        conditions=conditions,
        true_rate=np.array([rate.at(each) for each in conditions], np.float64),
        estimate=estimate,
        estimated_rate=_rates(study, estimate, busy),
        fraction=_fractions(study, busy),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        power_mw=bins.sums["energy_aj"] / bins.cycles * mission.clock_mhz * MW_PER_AJ_MHZ,
        queue=bins.sums["waiting_cycles"] / bins.cycles,
        answered=bins.sums["answered"],
        missed=bins.sums["missed"],
        changes=bins.sums["changes"],
    )


def coarser(bins: TimeBins, most: int) -> TimeBins:
    """Return the same sums in at most so many bins, each as wide as several of the old ones."""
    count = len(bins.starts)
    together = -(-count // most)
    firsts = np.arange(0, count, together)
    sums = {name: np.add.reduceat(each, firsts) for name, each in bins.sums.items()}
    return TimeBins(bins.bin_cycles * together, bins.end_cycle, sums)


def _windows(study: Reconfiguration, bins: TimeBins) -> tuple[Values, Values, Values]:
    """Return the mean accuracy of the windows of each bin, and the interval of one window."""
    requests, confidence = study.goals.window_requests, study.fault_free.confidence
    windows, right = bins.sums["windows"], bins.sums["window_right"]
    found = np.full((3, len(windows)), np.nan)
    places = np.flatnonzero(windows)
    mean = right[places] / windows[places]
    counts = np.rint(mean).astype(int).tolist()
    shares = {count: clopper_pearson(count, requests, confidence) for count in set(counts)}
    found[0, places] = mean / requests
    found[1, places] = [shares[count].low for count in counts]
    found[2, places] = [shares[count].high for count in counts]
    accuracy, low, high = (_carried(each) for each in found)
    return accuracy, low, high


def _fractions(study: Reconfiguration, busy: Values) -> Values:
    """Return the unprotected fraction of each bin; `busy` has cycles, splits x bins."""
    fractions = np.array([point.fraction for point in study.grid.points])
    total = busy.sum(axis=0)
    mean = np.full(total.shape, np.nan)
    np.divide(fractions @ busy, total, out=mean, where=total > 0)
    return _carried(mean)


def _rates(study: Reconfiguration, estimate: Values, busy: Values) -> Values:
    """Return the rate that each bin's estimate means under the split that worked most."""
    points = _carried(np.where(busy.sum(axis=0) > 0, busy.argmax(axis=0), np.nan))
    found = np.full(estimate.shape, np.nan)
    for place in np.flatnonzero(np.isfinite(points)):
        point = int(points[place])
        if study.surface.unprotected[point]:
            found[place] = study.surface.rate_of(float(estimate[place]), point)
    return found


def _carried(values: Values) -> Values:
    """Return values in which each NaN has become the last number before it, if there is any."""
    last = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    return np.asarray(values[last])
