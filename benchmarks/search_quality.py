"""How close `nce-sim explore` comes to the best of all points, beside random choices.

    python benchmarks/search_quality.py [--seeds 30] [--trials 80] [--store search-quality]

Every point of the bundled space digits-least-energy is measured, so that the best is known. Then
three questions are asked of it, each by so many searches with Optuna and as many at random, and the
script says for 20, 40 ... trials how many of them had the best point, and by how much the best that
they had was above it. Nothing is measured twice: the searches look points up.
"""

import argparse
from pathlib import Path

from nce_sim.config.space import Constraints, Objective, SpaceConfig, load_space
from nce_sim.report.explore_report import question
from nce_sim.study.measure_trials import measuring
from nce_sim.study.search import exhaust, objective_of
from nce_sim.study.search_quality import Closeness, closeness
from nce_sim.study.space import open_space
from nce_sim.study.store import Store

QUESTIONS = (
    (Objective(minimise="energy_uj"), Constraints(lost_points=1, latency_us=200)),
    (Objective(minimise="latency_us"), Constraints(lost_points=3, energy_uj=6)),
    (Objective(minimise="lost_points"), Constraints(energy_uj=4.4, latency_us=60)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--store", type=Path, default=Path("search-quality"))
    asked = parser.parse_args()
    base = load_space("digits-least-energy")
    for objective, constraints in QUESTIONS:
        compare(
            base.model_copy(update={"objective": objective, "constraints": constraints}),
            Store(asked.store), asked.trials, asked.seeds,
        )  # fmt: skip


def compare(config: SpaceConfig, store: Store, trials: int, seeds: int) -> None:
    space = open_space(config)
    whole = exhaust(space, measuring(space, store))
    best = whole.best
    print(f"\n{question(space)}")
    if best is None:
        print(f"none of {len(whole.trials)} points is feasible")
        return
    print(
        f"{len(whole.feasible)} of {len(whole.trials)} points are feasible; the best has "
        f"{objective_of(best):.4g}: {space.values(best.choice)}"
    )
    print("sampler  trials  had a feasible one  had the best  above the best")
    for row in closeness(whole, trials, range(seeds)):
        print(
            f"{row.sampler:<7}  {row.trials:>6}  {row.found:>18.0%}  {row.optimal:>12.0%}  "
            f"{_gap(config, row):>14}"
        )


def _gap(config: SpaceConfig, row: Closeness) -> str:
    if row.gap is None:
        return "-"
    lost = config.objective.minimise == "lost_points"
    return f"{row.gap:.2f} points" if lost else f"{row.gap:.2%}"


if __name__ == "__main__":
    main()
