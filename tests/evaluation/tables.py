"""A small comparison, made up."""

from pathlib import Path

from di4c.evaluation.cells import Measurement

REFERENCE_VALUES = {"frechet_distance": {"mean": 11.0, "std": 0.5}}
HIGHER_IS_BETTER = {"frechet_distance": False, "unique_fraction": None}
VALUES = {("teacher", None): 200.0, ("student", "inf"): 80.0, ("student", 4): 150.0, ("student", "product"): 190.0}


def measurements(grid: Path | None = None) -> list[Measurement]:
    return [
        Measurement(
            model=model, mixture_size=size, steps=steps, seed=seed, nfe=steps, seconds=[0.5, 0.001 * steps, 0.003 * steps],
            metrics={"frechet_distance": value / steps + seed, "unique_fraction": 1.0},
            higher_is_better=HIGHER_IS_BETTER, grid=grid if seed == 0 else None,
        )
        for (model, size), value in VALUES.items()
        for steps in (1, 2, 4)
        for seed in (0, 1)
    ]  # fmt: skip
