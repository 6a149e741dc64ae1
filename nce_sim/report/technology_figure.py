"""Does the table matter: what the engine that one table chooses costs under another."""

from matplotlib.figure import Figure

from nce_sim.report.style import SMALL, new_figure, styled
from nce_sim.study.technology_choice import TechnologyChoice

DARK = 0.6
"""From this share of the darkest shade on, text is white."""


@styled
def figure_matrix(choice: TechnologyChoice) -> Figure:
    """Draw, for tables of choice (rows) and of building (columns), energy above the best there."""
    names = [table.name for table in choice.tables]
    count = len(names)
    figure = new_figure(1.6 + 0.4 * count, "More energy than the best engine under the table (%)")
    axes = figure.subplots()
    shares = [[100 * choice.regret(one, other) for other in range(count)] for one in range(count)]
    most = max(max(row) for row in shares) or 1.0
    axes.imshow(shares, cmap="Oranges", vmin=0, vmax=1.4 * most, aspect="auto")
    for one, row in enumerate(shares):
        for other, share in enumerate(row):
            axes.annotate(
                f"{share:.1f}", (other, one), ha="center", va="center", fontsize=SMALL,
                color="white" if share > DARK * 1.4 * most else "black",
            )  # fmt: skip
    engines = [choice.answers[choice.best(place)] for place in range(count)]
    labels = [
        f"{name}:\n{each.scheme} {each.ppe_columns}+{each.pe_columns}, {each.fraction:.0%}"
        for name, each in zip(names, engines, strict=True)
    ]
    axes.set_yticks(range(count), labels, fontsize=SMALL)
    axes.set_xticks(range(count), [name.replace(" ", "\n", 1) for name in names])
    axes.set_ylabel("Chosen with")
    axes.set_xlabel("Built in")
    return figure
