"""How alike two rankings order the neurons of a network."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from nce_sim.errors import InputError

if TYPE_CHECKING:
    from nce_sim.resilience.ranking import Ranking

Correlation = Literal["spearman", "kendall"]
CORRELATIONS: tuple[Correlation, ...] = get_args(Correlation)

Scores = Mapping[str, NDArray[np.float64]]
"""A score of every neuron: by layer, in the layer's shape."""


def rank_correlation(first: "Ranking", second: "Ranking", kind: Correlation = "spearman") -> float:
    """Return the rank correlation of two rankings over all neurons of one network, -1 to 1.

    "spearman" is the correlation of the ranks, equal scores having the mean of their ranks;
    "kendall" is tau-b: pairs in the same order less pairs in the opposite one, ties allowed for.

    Raises InputError for an unknown kind, for rankings of different networks, and for a ranking
    that finds all neurons alike, which has no order.
    """
    _check_comparable(first, second, kind)
    found = correlation_of_scores(first.relevance, second.relevance, kind)
    if found is None:
        raise InputError(
            f"a ranking by '{first.origin.method}' or '{second.origin.method}' finds all neurons "
            f"alike: it has no order to compare"
        )
    return found


def layer_correlations(
    first: "Ranking", second: "Ranking", kind: Correlation = "spearman"
) -> dict[str, float | None]:
    """Return the rank correlation of two rankings within each layer, by its name.

    It is None for a layer whose neurons one of them finds all alike. Raises InputError as
    `rank_correlation` does for an unknown kind and different networks.
    """
    _check_comparable(first, second, kind)
    return {
        name: correlation_of_scores({name: scores}, {name: second.relevance[name]}, kind)
        for name, scores in first.relevance.items()
    }


def _check_comparable(first: "Ranking", second: "Ranking", kind: Correlation) -> None:
    """Raise InputError for an unknown kind of correlation and for rankings of two networks."""
    if kind not in CORRELATIONS:
        raise InputError(f"unknown correlation '{kind}': known are {', '.join(CORRELATIONS)}")
    if first.origin.network_identity != second.origin.network_identity:
        raise InputError(
            f"rankings by '{first.origin.method}' and '{second.origin.method}' are of different "
            f"networks, '{first.origin.network}' and '{second.origin.network}'"
        )


def correlation_of_scores(
    first: Scores, second: Scores, kind: Correlation = "spearman"
) -> float | None:
    """Return the rank correlation of two scores of the same layers; None if one has no order."""
    flat = [np.concatenate([scores[name].ravel() for name in first]) for scores in (first, second)]
    if any(np.ptp(values) == 0 for values in flat):
        return None
    correlate = spearmanr if kind == "spearman" else kendalltau
    return float(correlate(*flat).statistic)
