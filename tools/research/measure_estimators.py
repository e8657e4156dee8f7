"""Bias, spread and use of estimators and λ samplers: python tools/research/measure_estimators.py PART… [--out FILE]

    enumerated   a mixture over a grid of λ, with the exact truth
    gradient     the real gradient of students of the digits
    targets      the consistency term of the same student: control variate, own component, an x_u for each target
    training     short trainings that differ in one choice, by held-out likelihood

Needs runs/digits-teacher (tools/specs/digits-teacher.yaml); gradient and targets need its students runs/estimators-uniform and
runs/estimators-gaussian: tools/train.py --spec tools/specs/digits-student.yaml --set train.steps=300 --set train.run=… with
--set "latent={name: uniform, dim: 1}" and "{name: gaussian, dim: 4}". Parts that are in FILE already are replaced when named.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import torch

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tools" / "research")]

from estimator_cases import digits, enumerated

from di4c.command_line import path_argument
from di4c.config.build import build
from di4c.config.registry import Registry
from di4c.config.spec import read_spec
from di4c.engine.run_folder import code_commit
from di4c.evaluation.loaded import LoadedModel, load
from di4c.evaluation.repeated import standard_deviation
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.jackknife import Jackknife
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.estimators.own_component import OwnComponent
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.unit_cube import Sobol, Stratified, Uniform

SPEC = TOP / "tools/specs/digits-student.yaml"
CUBE = {"uniform": Uniform, "stratified": Stratified, "sobol": Sobol, "antithetic": enumerated.Antithetic}
GAUSSIAN = {
    points: lambda points=points: Gaussian(dim=4, points=points) for points in ("independent", "stratified", "sobol")
}
GAUSSIAN["antithetic"] = lambda: enumerated.AntitheticGaussian(4)
LAWS = {"uniform": {"name": "uniform", "dim": 1}, "gaussian": {"name": "gaussian", "dim": 4}}
TRAINING = {"steps": 150, "batch_size": 32, "components": 4}
MONTE_CARLO, JACKKNIFE, OWN = MonteCarlo(), Jackknife(), OwnComponent()


def measure_enumerated() -> list[dict]:
    """Every estimator and λ sampler at M = 4, 16, 64, on few and many positions."""
    rows = []
    for positions, scale in ((4, 1.0), (16, 1.0), (64, 1.0)):
        case = enumerated.tables(positions, 4, scale)
        for components in (4, 16, 64):
            tried = {("monte-carlo", law): (MONTE_CARLO, CUBE[law]()) for law in CUBE}
            tried |= {("jackknife", "uniform"): (JACKKNIFE, Uniform()), ("own-component", "uniform"): (OWN, Uniform())}
            for (estimator, law), (made, latent) in tried.items():
                found = enumerated.errors(case, made, latent, components, repeats=200)
                rows.append({"D": positions, "M": components, "estimator": estimator, "latent": law, **found})
        atoms, finite = 32, enumerated.tables(positions, 4, scale, grid=32)
        for components, independent in itertools.product((4, 16), (True, False)):
            found = enumerated.errors(
                finite, MONTE_CARLO, Categorical(atoms=atoms, independent=independent), components, repeats=200
            )
            latent = f"categorical, {'independent' if independent else 'spread'}"
            rows.append(
                {"D": positions, "M": components, "K": atoms, "estimator": "monte-carlo", "latent": latent, **found}
            )
        roulette = enumerated.Telescoping(base=4, levels=5, repeats=200)
        found = enumerated.errors(case, roulette, Uniform(), 128, repeats=200)
        rows.append(
            {
                "D": positions,
                "M": round(roulette.mean_components, 1),
                "estimator": "telescoping",
                "latent": "uniform",
                **found,
            }
        )
    return rows


def system(latent: dict, seed: int = 0) -> "Parts":  # noqa: F821
    """Data, process, teacher, a fresh student and its λ sampler, of the digits spec."""
    changes = [f"latent={json.dumps(latent)}", f"seed={seed}", "objective.components=4"]
    spec = read_spec(SPEC, changes)
    torch.manual_seed(seed)
    return build(spec, Registry.default())


def trained_student(law: str) -> LoadedModel:
    """The run runs/estimators-LAW: digits-student with --set latent=LAWS[law], train.steps=300."""
    model = load(TOP / f"runs/estimators-{law}", device="cpu")
    model.student.requires_grad_(True)
    return model


def measure_gradient(size: int = 16, repeats: int = 32) -> list[dict]:
    """The data term's gradient at t = 1 and ½ under each λ sampler and estimator."""
    rows = []
    for base, laws in (("uniform", CUBE), ("gaussian", GAUSSIAN)):
        model = trained_student(base)
        teacher = model.teacher()._teacher
        batch = model.data.split("train").batch(torch.arange(size))
        for t in (1.0, 0.5):

            def made(latent, components, estimator, t=t, model=model, teacher=teacher):
                return digits.objective(
                    teacher, model.student, latent, model.sampler, components, t=[t], data=estimator
                )

            truth, exact = digits.gradients(made(laws["sobol"](), 1024, MONTE_CARLO), batch, 3, first_seed=10_000)
            noise = example_noise(made(laws["sobol"](), 64, MONTE_CARLO), model, size)
            tried = [("monte-carlo", law) for law in laws] + [("jackknife", next(iter(laws)))]
            for components in (4, 16):
                for estimator, law in tried:
                    kind = MONTE_CARLO if estimator == "monte-carlo" else JACKKNIFE
                    found = digits.gradients(made(laws[law](), components, kind), batch, repeats)
                    values = digits.errors(*found, float(truth.mean()), exact.mean(0), noise, size)
                    rows.append({"law": base, "t": t, "M": components, "estimator": estimator, "latent": law, **values})
                    say(rows[-1])
    return rows


def example_noise(made, model: LoadedModel, size: int, batches: int = 12) -> float:
    """Standard deviation of the gradient from one batch of `size` examples to another, λ nearly exact."""
    found = []
    for k in range(batches):
        batch = model.data.split("train").batch(torch.arange(k * size, (k + 1) * size))
        found.append(digits.gradients(made, batch, 1, first_seed=k)[1][0])
    return standard_deviation(torch.stack(found))


def measure_targets(size: int = 16, repeats: int = 32) -> list[dict]:
    """The consistency term's gradient at t = 1: estimators, the control variate's best coefficient, an x_u for each target."""
    model, rows = trained_student("uniform"), []
    teacher = model.teacher()._teacher
    batch = model.data.split("train").batch(torch.arange(size))

    def made(estimator, components, targets, latent=Uniform(), **options):  # noqa: B008
        return digits.objective(
            teacher,
            model.student,
            latent,
            model.sampler,
            components,
            t=[1.0],
            consistency=estimator,
            targets=targets,
            **options,
        )

    # The truth: many targets for each example, each scored by 256 λ in a Sobol sequence.
    truth, exact = digits.gradients(made(MONTE_CARLO, 256, 64, Sobol(), x_u="each"), batch, 16, first_seed=10_000)
    noise = example_noise(made(MONTE_CARLO, 64, 16, Sobol()), model, size)
    tried = {
        "monte-carlo": (MONTE_CARLO, {}), "own-component": (OWN, {}), "control-variate": (ControlVariate(), {}),
        "monte-carlo, sobol": (MONTE_CARLO, {"latent": Sobol()}), "monte-carlo, x_u each": (MONTE_CARLO, {"x_u": "each"}),
        "control-variate, x_u each": (ControlVariate(), {"x_u": "each"}),
    }  # fmt: skip
    for components in (4, 16):
        kept = {}
        for name, (estimator, options) in tried.items():
            begin = time.process_time()
            losses, found = digits.gradients(made(estimator, components, components, **options), batch, repeats)
            seconds = (time.process_time() - begin) / repeats
            values = digits.errors(losses, found, float(truth.mean()), exact.mean(0), noise, size)
            if "control" in name:
                del values["bias_nats"]  # its value is lower by the entropies of the target's marginals
            rows.append(
                {"t": 1.0, "M": components, "N": components, "estimator": name, "cpu_seconds": seconds, **values}
            )
            kept[name] = found
            say(rows[-1])
        rows.append(
            {
                "t": 1.0,
                "M": components,
                "N": components,
                **best_coefficient(kept["monte-carlo"], kept["control-variate"], noise),
            }
        )
        say(rows[-1])
    return rows


def best_coefficient(plain: torch.Tensor, controlled: torch.Tensor, noise: float) -> dict:
    """The β that minimises the gradient's variance in plain + β·(controlled − plain), chosen on these very draws: no
    leave-one-out estimate of it can do better."""
    difference = controlled - plain
    centred, change = plain - plain.mean(0), difference - difference.mean(0)
    beta = float(-(centred * change).sum() / change.pow(2).sum())
    spread = (centred + beta * change).pow(2).sum() / (len(plain) - 1)
    return {
        "estimator": "control-variate, best coefficient",
        "coefficient": beta,
        "gradient_sd": float(spread.sqrt()) / noise,
    }


def trainings() -> list[tuple[str, str | None, dict]]:
    """(the data term's estimator, the consistency term's, the λ sampler) of the short trainings."""
    uniform, gaussian = LAWS["uniform"], LAWS["gaussian"]
    data_only = [("monte-carlo", {"name": law, "dim": 1}) for law in ("uniform", "sobol", "stratified")] + [
        ("jackknife", uniform)
    ]
    data_only += [("monte-carlo", {"name": "categorical", "atoms": 32, "independent": i}) for i in (True, False)]
    data_only += [("monte-carlo", gaussian | {"points": p}) for p in ("independent", "sobol")]
    tried = [(name, None, latent) for name, latent in data_only]
    tried[4:4] = [("monte-carlo", name, uniform) for name in ("monte-carlo", "own-component")]
    return tried


def measure_training(only: list[int], seeds: list[int]) -> list[dict]:
    """Held-out one-step likelihood after a TRAINING: λ samplers and estimators on the data term, then the consistency term."""
    components = TRAINING["components"]
    kinds = {"monte-carlo": MONTE_CARLO, "jackknife": JACKKNIFE, "own-component": OWN, None: None}
    rows = []
    for data, consistency, latent in [trainings()[k] for k in only] if only else trainings():
        found = {}
        for seed in seeds:
            parts = system(latent, seed)
            made = digits.objective(
                parts.teacher,
                parts.student,
                parts.latent,
                parts.objective.options.sampler,
                components,
                t=[0.5, 0.75, 1.0, 1.0],
                data=kinds[data],
                consistency=kinds[consistency],
                targets=components if consistency else 0,
            )
            digits.trained(made, parts.data, steps=TRAINING["steps"], batch_size=TRAINING["batch_size"], seed=seed)
            everything = Categorical(atoms=32) if latent["name"] == "categorical" else parts.latent
            number = 32 if latent["name"] == "categorical" else 128
            parts.student.eval()
            found[str(seed)] = digits.held_out_nll(made, parts.data, everything, components=number)
        rows.append(
            {"M": components, "data": data, "consistency": consistency, "latent": latent, "held_out_nll_nats": found}
        )
        say(rows[-1])
    return rows


def merged(old: list[dict], new: list[dict]) -> list[dict]:
    """The rows of the same choice joined, with the seeds of both."""
    rows = {json.dumps({k: v for k, v in row.items() if k != "held_out_nll_nats"}): dict(row) for row in old}
    for row in new:
        key = json.dumps({k: v for k, v in row.items() if k != "held_out_nll_nats"})
        rows[key] = row | {"held_out_nll_nats": rows.get(key, row)["held_out_nll_nats"] | row["held_out_nll_nats"]}
    return list(rows.values())


def say(row: dict) -> None:
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


PARTS = {
    "enumerated": measure_enumerated,
    "gradient": measure_gradient,
    "targets": measure_targets,
    "training": measure_training,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=path_argument, default=TOP / "tools/results/estimators.json")
    parser.add_argument(
        "--trainings", type=int, nargs="*", default=[], help="numbers of the short trainings, which are added to FILE"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1], help="of the short trainings")
    options = parser.parse_args()
    for part in options.parts:
        begin = time.process_time()
        rows = measure_training(options.trainings, options.seeds) if part == "training" else PARTS[part]()
        stored = json.loads(options.out.read_text()) if options.out.exists() else {}
        about = TRAINING if part == "training" else {}
        if part == "training":
            rows = merged(stored.get(part, {"rows": []})["rows"], rows)
        seconds = round(time.process_time() - begin)
        stored[part] = {
            "commit": code_commit(),
            "spec": str(SPEC.relative_to(TOP)),
            "cpu_seconds": seconds,
            **about,
            "rows": rows,
        }
        options.out.write_text(json.dumps(stored, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
