"""Hold the fault-aware ranking against LRP: six faults, eight fractions, all test images.

    python benchmarks/fault_aware_ranking.py [--data DATA] [--images N] [--out FOLDER]

Rankings are made from all bundled training images, those for noise at sigma = 3 and those for
dropout at p = 0.5: neither order depends on the level. Both rankings meet the same images and the
same faults. Prints the least lower bound of all paired differences that holds for all 48 of them
together, and writes the page of `nce-sim rank --compare`. Interrupted, it goes on where it stopped.
All 10,000 images of Fashion-MNIST take about an hour on two cores.
"""

import argparse
from pathlib import Path

from rich.console import Console

import nce_sim as nce
from nce_sim.cli.progress import stages
from nce_sim.report.ranking_report import comparison_report, headline
from nce_sim.report.study_page import write_study
from nce_sim.study.ranking_comparison import ComparisonPlan, measure_rankings

NETWORKS = {"fashion-mnist": "allcnn-fashion", "digits": "cnn-digits"}
FRACTIONS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", choices=NETWORKS, default="fashion-mnist")
    options.add_argument("--images", type=int, help="test images; all if not given")
    options.add_argument("--realisations", type=int, default=1)
    options.add_argument("--out", type=Path, default=Path("fault-aware"))
    arguments = options.parse_args()
    network = nce.load_model(NETWORKS[arguments.data])
    train, test = (nce.load_data(arguments.data, part) for part in ("ranking", "test"))
    test = test.first(arguments.images or len(test))
    means = nce.mean_activation(network, train.images)
    rates, deviations = (0.1, 0.3, 0.5), (1.0, 2.0, 3.0)
    lrp = nce.rank(network, train.images, train.labels, "lrp")
    for_dropout, for_noise = (
        nce.rank(network, train.images, train.labels, "fault-aware", fault=fault)
        for fault in (nce.Dropout(rates[-1]), nce.GaussianNoise(deviations[-1], means))
    )
    faults = (
        *(nce.Dropout(rate) for rate in rates),
        *(nce.GaussianNoise(deviation, means) for deviation in deviations),
    )
    plan = ComparisonPlan(
        ("fault-aware", "lrp"), faults, FRACTIONS, realisations=arguments.realisations
    )
    rankings = {
        "fault-aware": (for_dropout,) * len(rates) + (for_noise,) * len(deviations),
        "lrp": (lrp,) * len(faults),
    }
    with stages(Console(stderr=True)) as stage:
        result = measure_rankings(network, rankings, test, plan, stage, arguments.out / ".resume")
    print(*headline(result), sep="\n")
    for fault in faults:
        for method in plan.methods:
            mine = [c for c in result.cells if (c.fault, c.method) == (fault, method)]
            shown = "  ".join(f"{100 * cell.correct.value:5.2f}" for cell in mine)
            print(f"{fault!s:16} {method:12} {shown}")
        gains = [c.gain for c in result.cells if c.fault == fault and c.gain is not None]
        shown = "  ".join(f"{100 * g.value:+.2f} [{100 * g.low:+.2f}]" for g in gains)
        print(f"{'':16} {'gain [low]':12} {shown}")
    made = [("nce-sim", nce.__version__), ("Rankings", f"{len(train):,} images of {train.name}")]
    write_study(comparison_report(result, made), arguments.out)


if __name__ == "__main__":
    main()
