"""A run against its teacher: what tools/eval.py does, from folders to eval.json, plots and the report."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from di4c.config.build import build_metrics
from di4c.config.eval_spec import EvalSpec, MixtureSize, mixture_size
from di4c.config.plugin_modules import code_digest
from di4c.config.spec import Spec
from di4c.contracts import DataSource, Metric, Tempering
from di4c.engine.run_folder import code_commit, environment
from di4c.errors import DataError, SpecError
from di4c.evaluation.cells import CellStore, Measurement, write_atomically, writing
from di4c.evaluation.frontier import Frontier
from di4c.evaluation.frontier_plot import frontier_figure
from di4c.evaluation.loaded import LoadedModel, inner_runs, load
from di4c.evaluation.plots import metrics_figure, training_figure
from di4c.evaluation.report import Report
from di4c.evaluation.rows import REFERENCE, Row
from di4c.evaluation.sweep import Entrant, Sweep, grid_examples
from di4c.evaluation.table import rows_of, spread, write_csv, write_json
from di4c.evaluation.tempered import FrontierOptions, measured_frontier
from di4c.fingerprint import fingerprint, lent_teachers
from di4c.paths import is_plain_name
from di4c.ranks import Ranks
from di4c.yaml_text import dump

Progress = Callable[[int, int, str], None]
SILENT: Progress = lambda done, total, text: None


@dataclass(frozen=True)
class Outcome:
    """What was measured, and the folder that holds it."""

    rows: list[Row]
    reference_values: dict[str, dict[str, float]]
    higher_is_better: dict[str, bool | None]
    folder: Path
    frontier: Frontier | None = None


def settings_of(spec: Spec, **changes: Any) -> EvalSpec:
    """The spec's eval section with changes (None: unchanged); metrics may be given as names. Raises SpecError."""
    if spec.eval is None:
        raise SpecError(
            f"{spec.source}: eval: missing; evaluation needs sampler, metrics, steps, samples, seeds, batch_size."
        )
    changes = {key: value for key, value in changes.items() if value is not None}
    known = {entry["name"]: entry for entry in spec.eval.metrics}
    if "metrics" in changes:
        changes["metrics"] = [known.get(name, {"name": name}) for name in changes["metrics"]]
    if "mixture_sizes" in changes:
        changes["mixture_sizes"] = [mixture_size(size, "--mixture-sizes") for size in changes["mixture_sizes"]]
    return dataclasses.replace(spec.eval, **changes)


def compare(
    run: LoadedModel,
    settings: EvalSpec,
    out: Path,
    *,
    also: Mapping[str, LoadedModel],
    ranks: Ranks,
    say: Progress,
    alone: bool = False,
    frontier: FrontierOptions | None = None,
) -> Outcome | None:
    """Measures the run, its teacher and further models, and writes everything to `out`. Collective; None but on rank 0.

    What an interrupted call has finished is not done again. alone: a student without its teacher, which then need not be at hand.
    frontier: quality against entropy over temperatures too.
    """
    sweep = sweep_of(run, settings, out / "cells", ranks, say)
    sizes: Any = settings.mixture_sizes  # normalised when the spec was read
    compared = entrants(run, sizes, also, alone=alone)
    measured = sweep.run(compared)
    curves = None if frontier is None else measured_frontier(sweep, compared, settings.top_p, frontier)
    if not ranks.first:
        return None
    by_seed = sweep.reference_values()
    reference_values = {name: spread(values[name] for values in by_seed) for name in by_seed[0]}
    directions = {name: better for m in measured for name, better in m.higher_is_better.items()}
    outcome = Outcome(rows_of(measured), reference_values, directions, out, curves)
    with writing(out):
        _write(outcome, run, settings, also, _copied_grids(measured, out), [metric for _, metric in sweep.metrics])
    return outcome


def sweep_of(run: LoadedModel, settings: EvalSpec, store: Path, ranks: Ranks, say: Progress = SILENT) -> Sweep:
    """The sweep of an eval section on a run's data; its cells lie in the folder `store`."""
    return Sweep(
        data=run.data, metrics=_metrics(run, settings), store=CellStore(store), steps=settings.steps,
        seeds=range(settings.seeds), samples=settings.samples, batch_size=settings.batch_size, ranks=ranks, say=say,
        tempering=Tempering.of(settings.temperature, settings.top_p), code=code_digest(run.spec.plugins),
    )  # fmt: skip


def entrants(
    run: LoadedModel, sizes: Sequence[MixtureSize], also: Mapping[str, LoadedModel], *, alone: bool = False
) -> list[Entrant]:
    """The models to compare: teacher (not of a student alone), student at every mixture size (the whole prior first), then the others.

    Raises SpecError or DataError where they cannot be compared.
    """
    found = [] if alone and run.student else [entrant(REFERENCE, None, run if run.student is None else run.teacher())]
    if run.student is not None:
        ordered = sorted(dict.fromkeys(sizes), key=lambda size: (size != "inf", size == "product", str(size).zfill(9)))
        found += [entrant("student", size, run) for size in ordered]
    taken = {one.name for one in found} | {"student"}
    for name, other in also.items():
        if name in taken:
            raise SpecError(f"--also {name}: the name is taken; choose another")
        if other.data.fingerprint() != run.data.fingerprint():
            raise DataError(
                f"--also {name}: {other.path} was trained on other data than {run.path}; they cannot be compared"
            )
        found.append(entrant(name, None if other.student is None else "inf", other))
    return found


def entrant(name: str, size: MixtureSize, model: LoadedModel) -> Entrant:
    """A loaded model under one prior of λ as a sweep takes it."""
    latent = model.spec.latent if size else None
    identity = {"weights": model.digest, "sampler": model.spec.eval.sampler, "latent": latent}
    guides = [fingerprint(teacher) for teacher in lent_teachers(model.sampler)]
    identity |= {"guides": guides} if guides else {}
    identity |= code_digest(model.spec.plugins)
    return Entrant(name, size, lambda draws: model.model(size, draws), model.sampler, identity)


def _metrics(run: LoadedModel, settings: EvalSpec) -> list[tuple[Mapping[str, Any], Metric]]:
    names = [entry["name"] for entry in settings.metrics]
    if len(set(names)) < len(names):
        raise SpecError(f"eval.metrics: each metric once, found {', '.join(names)}")
    spec = dataclasses.replace(run.spec, eval=settings)
    made = build_metrics(spec, run.registry, run.data, run.process)
    return [(entry, made[entry["name"]]) for entry in settings.metrics]


def _copied_grids(measured: Sequence[Measurement], out: Path) -> dict[tuple[str, Any, int], Path]:
    """{(model, mixture size, steps): a copy of the cell's picture under a plain name}."""
    folder = out / "grids"
    folder.mkdir(exist_ok=True)
    grids = {}
    for m in measured:
        if m.grid is not None:
            mixture = "" if m.mixture_size is None else f"-{m.mixture_size}"
            target = folder / f"{m.model}{mixture}-{m.steps}{m.grid.suffix}"
            grids[m.model, m.mixture_size, m.steps] = Path(shutil.copyfile(m.grid, target))
    return grids


def _write(
    outcome: Outcome,
    run: LoadedModel,
    settings: EvalSpec,
    also: Mapping[str, LoadedModel],
    grids: Mapping[tuple[str, Any, int], Path],
    metrics: Sequence[Metric],
) -> None:
    """eval.json, eval.csv, eval.png, report.html."""
    rows, reference_values, out = outcome.rows, outcome.reference_values, outcome.folder
    made = environment()
    models = {REFERENCE: str(run.path)} if run.student is None else {"student": str(run.path)}
    models |= {name: str(other.path) for name, other in also.items()}
    shown = dataclasses.asdict(settings) | {
        "models": models,
        "device": made["device"],
        "threads": torch.get_num_threads(),
    }
    spec = run.spec.to_dict()
    write_json(
        out / "eval.json",
        rows,
        reference_values=reference_values,
        higher_is_better=outcome.higher_is_better,
        frontier=None if outcome.frontier is None else dataclasses.asdict(outcome.frontier),
        settings=shown,
        spec=spec,
        commit=code_commit(),
        versions=made["versions"],
    )
    write_csv(out / "eval.csv", rows)
    frontier_plot = None if outcome.frontier is None else frontier_figure(outcome.frontier, reference_values)
    if frontier_plot is not None:
        write_atomically(out / "frontier.png", frontier_plot)
    plot = metrics_figure(rows, reference_values, outcome.higher_is_better)
    write_atomically(out / "eval.png", plot)
    Report(
        title=f"Few-step sampling: {run.path.resolve().name}",
        rows=rows,
        reference_values=reference_values,
        higher_is_better=outcome.higher_is_better,
        plot=plot,
        frontier=None if frontier_plot is None else (frontier_plot, outcome.frontier),
        grids=grids,
        data_grid=_data_grid(run.data, out) if grids else None,
        curves=training_figure(_curves(run, also)),
        spec=dump(spec),
        facts=_facts(run, settings, models, made),
        metrics=metrics,
    ).write(out / "report.html")


def _data_grid(data: DataSource, out: Path) -> Path:
    """A picture of held-out data."""
    test = data.split("test")
    batch = test.batch(torch.arange(min(len(test), 1000)))
    rows = grid_examples(batch.cond, len(batch.x_0))
    return data.save_grid(batch.x_0[rows], out / "grids" / "data", None if batch.cond is None else batch.cond[rows])


def _curves(run: LoadedModel, also: Mapping[str, LoadedModel]) -> dict[str, Path]:
    """{model: its metrics.csv} of the runs that were trained alike."""
    name = REFERENCE if run.student is None else "student"
    alike = {key: other for key, other in also.items() if (other.student is None) == (run.student is None)}
    return {key: model.path / "metrics.csv" for key, model in {name: run, **alike}.items()}


def _facts(
    run: LoadedModel, settings: EvalSpec, models: Mapping[str, str], made: Mapping[str, Any]
) -> list[tuple[str, str]]:
    seconds = run.trained_seconds()
    return [
        *((name, path) for name, path in models.items()),
        *([("training time", f"{seconds / 60:.1f} minutes")] if seconds else []),
        ("parameters", f"{sum(p.numel() for p in run.network.parameters()):,}"),
        ("samples a cell", f"{settings.samples} × {settings.seeds} seeds, in batches of {settings.batch_size}"),
        ("sampler", str(settings.sampler["name"]) + _tempered(settings)),
        ("data", f"{run.spec.data['name']}, fingerprint {run.data.fingerprint() or 'unknown'}"),
        ("device", f"{made['device']}, {torch.get_num_threads()} threads"),
        ("commit", str(made["commit"] or "not a git checkout")),
        ("versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())),
    ]


def _tempered(settings: EvalSpec) -> str:
    """Temperature and top-p, where they are not 1."""
    values = {"temperature": settings.temperature, "top-p": settings.top_p}
    return "".join(f", {name} {value:g}" for name, value in values.items() if value != 1)


def runs_in(path: Path) -> list[str]:
    """The runs of a pipeline as `load_also` takes them. Raises SpecError where there is none."""
    folders = inner_runs(path)
    if not folders:
        raise SpecError(f"--every-run: {path} holds none; it is a single run")
    return [f"{folder.name}={folder}" for folder in folders]


def load_also(pairs: Sequence[str], device: str, overrides: Sequence[str] = ()) -> dict[str, LoadedModel]:
    """{name: model} of "NAME=RUN" texts, with the same overrides of their specs. Raises SpecError."""
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise SpecError(f"--also {pair}: expected NAME=RUN, e.g. one-component=runs/one-component")
        if not is_plain_name(name):
            raise SpecError(
                f"--also {pair}: files are called by the name, so it is letters without /, of at most 100 bytes; found {name!r}"
            )
        if name in found:
            raise SpecError(f"--also {pair}: the name is taken; choose another")
        found[name] = load(path, device=device, overrides=overrides)
    return found
