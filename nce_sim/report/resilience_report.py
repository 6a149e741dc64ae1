"""What rankings say of a network's layers and positions: Figures 5 and 6 of the paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from matplotlib.figure import Figure

from nce_sim.report.resilience_figures import (
    LAYER_CAPTION,
    SPATIAL_CAPTION,
    figure_layer_resilience,
    figure_spatial_resilience,
)
from nce_sim.report.resilience_summary import layer_resilience
from nce_sim.report.study_page import StudyReport
from nce_sim.report.style import method_name
from nce_sim.report.wording import SPACE
from nce_sim.resilience.ranking import Ranking

Row = dict[str, str | float]


@dataclass(frozen=True)
class _Group:
    """Rankings that are shown together: by method, of one network, from as many images."""

    network: str
    images: int
    rankings: Mapping[str, Ranking]

    @property
    def title(self) -> str:
        """Network and images in words."""
        return f"{self.network}, {self.images:,} image{'s' * (self.images != 1)}"


def resilience_report(
    title: str, lead: str, rankings: Sequence[Ranking], making: Sequence[tuple[str, str]]
) -> StudyReport:
    """Return the report of some rankings: a row for each layer of each, and their figures.

    Rankings of a network from as many images share figures; random ones stand in each.
    """
    figures: dict[str, tuple[Figure, str]] = {}
    groups = _groups(rankings)
    for number, group in enumerate(groups, 1):
        end = "" if len(groups) == 1 else f"_{number}"
        first = "lrp" if "lrp" in group.rankings else next(iter(group.rankings))
        spatial = figure_spatial_resilience(group.rankings, first)
        if spatial is not None:
            figures[f"spatial_resilience{end}"] = (spatial, f"{group.title}. {SPATIAL_CAPTION}")
        layers = figure_layer_resilience(group.rankings)
        figures[f"layer_resilience{end}"] = (layers, f"{group.title}. {LAYER_CAPTION}")
    rows = [row for ranking in rankings for row in _rows(ranking)]
    return StudyReport(title, lead, [_in_words(each) for each in rankings], figures, rows, making)


def _groups(rankings: Sequence[Ranking]) -> list[_Group]:
    groups: dict[tuple[str, int], dict[str, Ranking]] = {}
    for ranking in rankings:
        if ranking.origin.method != "random":
            key = ranking.origin.network, ranking.origin.images
            groups.setdefault(key, {})[ranking.origin.method] = ranking
    for ranking in rankings:
        if ranking.origin.method == "random":
            found = [each for key, each in groups.items() if key[0] == ranking.origin.network]
            for each in found or [groups.setdefault((ranking.origin.network, 0), {})]:
                each["random"] = ranking
    return [_Group(network, images, each) for (network, images), each in groups.items()]


def _rows(ranking: Ranking) -> list[Row]:
    origin = ranking.origin
    return [
        {
            "network": origin.network,
            "method": origin.method,
            "images": origin.images,
            "layer": layer.name,
            "neurons": layer.neurons,
            "harmonic_by_neurons": layer.harmonic_by_neurons,
            "arithmetic_by_neurons": layer.arithmetic_by_neurons,
            "share_infinite": layer.share_infinite,
        }
        for layer in layer_resilience(ranking)
    ]


def _in_words(ranking: Ranking) -> str:
    """Say over how wide a range the layers' means lie, and how stable the order is."""
    origin = ranking.origin
    means = [layer.harmonic_by_neurons for layer in layer_resilience(ranking)]
    finite = [mean for mean in means if isfinite(mean)]
    name = f"{method_name(origin.method)} ({origin.network}"
    name += f", {origin.images:,} image{'s' * (origin.images != 1)})" if origin.images else ")"
    spread = (
        f"the layers' harmonic mean resilience by neurons spans a factor of "
        f"{max(finite) / min(finite):,.3g}"
        if finite
        else "no layer has any relevance"
    )
    stable = ""
    if origin.stability is not None:
        stable = f"; the orders from two halves of the images correlate by {origin.stability:.3f}"
    return f"{name}:{SPACE}{spread}{stable}."
