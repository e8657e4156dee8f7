"""Bias, spread and use of estimators and λ samplers: python tools/research/measure_estimators.py PART… [--out FILE]

    enumerated   a mixture over a grid of λ, with the exact truth
    gradient     the real gradient of students of the digits
    targets      the consistency term of the same student: control variate, own component, an x_u for each target

gradient and targets need runs/digits-teacher (tools/specs/digits-teacher.yaml) and its students runs/estimators-uniform and
runs/estimators-gaussian: tools/train.py --spec tools/specs/digits-student.yaml --set train.steps=300 --set train.run=… with
--set "latent={name: uniform, dim: 1}" and "{name: gaussian, dim: 4}". Parts that are in FILE already are replaced when named.
"""

import argparse
import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path

import torch
from estimator_cases import digits, enumerated

from di4c.command_line import path_argument
from di4c.engine.run_folder import code_commit
from di4c.evaluation.loaded import LoadedModel, load
from di4c.evaluation.repeated import standard_deviation
from di4c.losses.objective import Di4C
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.jackknife import Jackknife
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.estimators.own_component import OwnComponent
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.unit_cube import Sobol, Stratified, Uniform

TOP = Path(__file__).resolve().parents[2]
SPEC = TOP / "tools/specs/digits-student.yaml"
CUBE = {"uniform": Uniform, "stratified": Stratified, "sobol": Sobol, "antithetic": enumerated.Antithetic}
GAUSSIAN = {points: partial(Gaussian, dim=4, points=points) for points in ("independent", "stratified", "sobol")}
GAUSSIAN["antithetic"] = partial(enumerated.AntitheticGaussian, 4)
SIZE, REPEATS = 16, 32
"""Examples of the batch whose gradient is looked at, and how often λ is drawn."""
MONTE_CARLO, JACKKNIFE, OWN = MonteCarlo(), Jackknife(), OwnComponent()


def measure_enumerated() -> list[dict]:
    """Every estimator and λ sampler at M = 4, 16, 64, on few and many positions."""
    rows = []
    tried = {("monte-carlo", law): (MONTE_CARLO, CUBE[law]()) for law in CUBE}
    tried |= {("jackknife", "uniform"): (JACKKNIFE, Uniform()), ("own-component", "uniform"): (OWN, Uniform())}
    for positions in (4, 16, 64):
        case, finite = (enumerated.tables(positions, grid=grid) for grid in (enumerated.GRID, 32))
        for components in (4, 16, 64):
            for (estimator, law), made in tried.items():
                found = enumerated.errors(case, *made, components)
                rows.append({"D": positions, "M": components, "estimator": estimator, "latent": law, **found})
        for components, independent in itertools.product((4, 16), (True, False)):
            law = Categorical(atoms=32, independent=independent)
            told = {"estimator": "monte-carlo", "latent": f"categorical, {'independent' if independent else 'spread'}"}
            found = enumerated.errors(finite, MONTE_CARLO, law, components)
            rows.append({"D": positions, "M": components, "K": law.num_atoms, **told, **found})
        roulette = enumerated.Telescoping(base=4, levels=5)
        found = enumerated.errors(case, roulette, Uniform(), 128)
        told = {"M": round(roulette.mean_components, 1), "estimator": "telescoping", "latent": "uniform"}
        rows.append({"D": positions, **told, **found})
    return rows


def trained_student(law: str) -> tuple[LoadedModel, tuple]:
    """The run runs/estimators-LAW: digits-student with train.steps=300 and its own `latent`; and the system of an objective."""
    model = load(TOP / f"runs/estimators-{law}", device="cpu")
    model.student.requires_grad_(True)
    return model, (model.teacher()._teacher, model.student, model.sampler)


def measure_gradient() -> list[dict]:
    """The data term's gradient at t = 1 and ½ under each λ sampler and estimator."""
    rows = []
    for base, laws in (("uniform", CUBE), ("gaussian", GAUSSIAN)):
        model, parts = trained_student(base)
        batch = model.data.split("train").batch(torch.arange(SIZE))
        tried = [(MONTE_CARLO, "monte-carlo", law) for law in laws] + [(JACKKNIFE, "jackknife", next(iter(laws)))]
        for t in (1.0, 0.5):
            made = partial(digits.objective, parts, t=[t])
            truth, exact = digits.gradients(made(laws["sobol"](), 1024, data=MONTE_CARLO), batch, 3, first_seed=10_000)
            noise = example_noise(made(laws["sobol"](), 64, data=MONTE_CARLO), model)
            for components, (kind, estimator, law) in itertools.product((4, 16), tried):
                found = digits.gradients(made(laws[law](), components, data=kind), batch, REPEATS)
                values = digits.errors(*found, float(truth.mean()), exact.mean(0), noise, SIZE)
                add(rows, {"law": base, "t": t, "M": components, "estimator": estimator, "latent": law, **values})
    return rows


def example_noise(made: Di4C, model: LoadedModel, batches: int = 12) -> float:
    """Standard deviation of the gradient from one batch of SIZE examples to another, λ nearly exact."""
    found = []
    for k in range(batches):
        batch = model.data.split("train").batch(torch.arange(k * SIZE, (k + 1) * SIZE))
        found.append(digits.gradients(made, batch, 1, first_seed=k)[1][0])
    return standard_deviation(torch.stack(found))


def measure_targets() -> list[dict]:
    """The consistency term's gradient at t = 1: estimators, the control variate's best coefficient, an x_u for each target."""
    (model, parts), rows = trained_student("uniform"), []
    batch = model.data.split("train").batch(torch.arange(SIZE))
    made = partial(digits.objective, parts, t=[1.0])
    # The truth: many targets for each example, each scored by 256 λ in a Sobol sequence.
    best = made(Sobol(), 256, consistency=MONTE_CARLO, targets=64, x_u="each")
    truth, exact = digits.gradients(best, batch, 16, first_seed=10_000)
    noise = example_noise(made(Sobol(), 64, consistency=MONTE_CARLO, targets=16), model)
    tried = {
        "monte-carlo": (MONTE_CARLO, Uniform(), "shared"), "own-component": (OWN, Uniform(), "shared"),
        "control-variate": (ControlVariate(), Uniform(), "shared"), "monte-carlo, sobol": (MONTE_CARLO, Sobol(), "shared"),
        "monte-carlo, x_u each": (MONTE_CARLO, Uniform(), "each"), "control-variate, x_u each": (ControlVariate(), Uniform(), "each"),
    }  # fmt: skip
    for components in (4, 16):
        kept, sizes = {}, {"t": 1.0, "M": components, "N": components}
        for name, (estimator, latent, x_u) in tried.items():
            begin = time.process_time()
            chosen = made(latent, components, consistency=estimator, targets=components, x_u=x_u)
            losses, kept[name] = digits.gradients(chosen, batch, REPEATS)
            seconds = (time.process_time() - begin) / REPEATS
            values = digits.errors(losses, kept[name], float(truth.mean()), exact.mean(0), noise, SIZE)
            if "control" in name:
                del values["bias_nats"]  # its value is lower by the entropies of the target's marginals
            add(rows, {**sizes, "estimator": name, "cpu_seconds": seconds, **values})
        add(rows, sizes | best_coefficient(kept["monte-carlo"], kept["control-variate"], noise))
    return rows


def best_coefficient(plain: torch.Tensor, controlled: torch.Tensor, noise: float) -> dict:
    """The β that minimises the gradient's variance in plain + β·(controlled − plain), chosen on these very draws: no
    leave-one-out estimate of it can do better."""
    difference = controlled - plain
    centred, change = plain - plain.mean(0), difference - difference.mean(0)
    beta = float(-(centred * change).sum() / change.pow(2).sum())
    spread = float(((centred + beta * change).pow(2).sum() / (len(plain) - 1)).sqrt())
    name = "control-variate, best coefficient"
    return {"estimator": name, "coefficient": beta, "gradient_sd": spread / noise}


def add(rows: list[dict], row: dict) -> None:
    """Appends a row and prints it."""
    rows.append(row)
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


PARTS = {"enumerated": measure_enumerated, "gradient": measure_gradient, "targets": measure_targets}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=path_argument, default=TOP / "tools/results/estimators.json")
    options = parser.parse_args()
    for part in options.parts:
        begin = time.process_time()
        rows = PARTS[part]()
        stored = json.loads(options.out.read_text()) if options.out.exists() else {}
        cpu_seconds = round(time.process_time() - begin)
        about = {"commit": code_commit(), "spec": str(SPEC.relative_to(TOP)), "cpu_seconds": cpu_seconds}
        stored[part] = about | {"rows": rows}
        options.out.write_text(json.dumps(stored, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
