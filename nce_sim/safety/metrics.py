"""Hardware architectural metrics of ISO 26262-5:2018, from the rows of an FMEDA.

With sums over all safety-related rows (all rows here), lambda being raw rates:

    SPFM = 1 - sum(lambda_SPF + lambda_RF) / sum(lambda)                    (annex C, clause C.2)
    LFM  = 1 - sum(lambda_MPF,latent) / sum(lambda - lambda_SPF - lambda_RF)        (clause C.3)
    PMHF = sum(lambda_SPF + lambda_RF) + dual-point term        (clause 9.4.2; ISO 26262-10:2018)
"""

from collections.abc import Sequence

from nce_sim.config.voltage_curves import Range
from nce_sim.safety.fmeda import Row
from nce_sim.safety.ranges import Weight, complement, product, scaled, total, weighted_mean
from nce_sim.safety.rates import PERMANENT, FaultClass

HOURS_PER_FIT = 1e9


def of_class(rows: Sequence[Row], fault_class: FaultClass) -> list[Row]:
    """Return the rows of one class of faults."""
    return [row for row in rows if row.mode.fault_class == fault_class]


def single_point_fault_metric(rows: Sequence[Row]) -> Range | None:
    """Return the SPFM of these rows; None if nothing ever fails.

    Safe faults stay in the denominator. It is a mean of shares weighted by rates, and its range is
    bounded over all rates and shares within theirs.
    """
    violating = weighted_mean(
        [_weight(row, row.mode.amount) for row in rows], [row.violating_share for row in rows]
    )
    return None if violating is None else complement(violating)


def latent_fault_metric(rows: Sequence[Row]) -> Range | None:
    """Return the LFM, of permanent faults only; None if no such fault is left to be latent."""
    lasting = of_class(rows, PERMANENT)
    latent = weighted_mean(
        [
            _weight(row, product(row.mode.amount, complement(row.violating_share)))
            for row in lasting
        ],
        [row.hidden_share_of_others for row in lasting],
    )
    return None if latent is None else complement(latent)


def _weight(row: Row, amount: Range) -> Weight:
    """Return an amount of a row with the technology's rate, which rows of one kind share."""
    return Weight(amount, row.mode.figure, row.mode.fit_each)


def dual_point_fit(rows: Sequence[Row], lifetime_h: float) -> Range:
    """Return the rate at which a second fault meets a latent one, on average over a lifetime.

    In each component 1/2 x lambda_latent x lambda x lifetime: the latent fault comes at a uniform
    time, and on average half of the lifetime is left for a second one. Any two faults that a
    component's mechanisms mask are taken to meet, which is an upper bound.
    """
    masked = [row for row in rows if row.masking is not None]
    found = []
    for component in dict.fromkeys(row.mode.element.component for row in masked):
        mine = [row for row in masked if row.mode.element.component == component]
        latent = total(row.latent_fit for row in mine)
        second = total(row.other_fit for row in mine)
        found.append(scaled(product(latent, second), lifetime_h / 2 / HOURS_PER_FIT))
    return total(found)
