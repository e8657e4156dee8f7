"""Spec → objects: data, process, teacher, student, λ sampler, objective."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from di4c.config.construct import create
from di4c.config.fitting import check_head, check_takes_student
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.config.trained import TrainedRun, run_folder, trained_entry, trained_run
from di4c.contracts import (
    DataSource,
    Draws,
    ForwardProcess,
    LambdaSampler,
    LentTeacher,
    Metric,
    Objective,
    Posterior,
    Sampler,
    Teacher,
)
from di4c.contracts.teacher import teacher_lacks
from di4c.contracts.weights import require_finite
from di4c.engine.carried import Carried, read_carried
from di4c.engine.exported import load_into
from di4c.engine.shared_base import share_base
from di4c.errors import SpecError, located
from di4c.fingerprint import fingerprint
from di4c.mixture.student import MixtureStudent


@dataclass(frozen=True)
class DataShape:
    """The sizes of a data set, enough to rebuild a model without its data."""

    num_positions: int
    num_states: int
    num_classes: int | None = None

    @classmethod
    def of(cls, data: "Data") -> "DataShape":
        return cls(data.num_positions, data.num_states, data.num_classes)

    def __str__(self) -> str:
        return f"{self.num_positions} positions, {self.num_states} states, {self.num_classes or 'no'} classes"


Data = DataSource | DataShape | Carried
"""A data set, its sizes, or what an export keeps of it."""


@dataclass(frozen=True)
class Parts:
    """What a spec stands for. student, latent: None when pretraining; objective: None in a skeleton.

    A tokenizer is trained with neither process nor teacher.
    """

    data: Data
    process: ForwardProcess | None = None
    teacher: Teacher | None = None
    student: MixtureStudent | None = None
    latent: LambdaSampler | None = None
    objective: Objective | None = None


def build(
    spec: Spec, registry: Registry, *, weights: bool = True, data: Data | None = None, start: bool = True
) -> Parts:
    """Every part of a run, on the CPU.

    start: whether the student is given the weights that `student.start` names, which a resumed run has no use for.
    With weights=False a skeleton to load an export into: entries as they stand (see `portable`), no objective, and a
    teacher whose constructor takes `weights` is told not to read any. `data` stands in for the data set, if given.
    """
    data = build_data(spec, registry) if data is None else data
    process, teacher, student, latent = None, None, None, None
    if spec.task != "tokenizer":
        process = build_process(spec, registry, data)
        # An export with a shared base names it and holds adapters and head alone.
        teacher = build_teacher(spec, registry, data, process, weights=weights or shares_base(spec))
    if spec.task == "distill":
        latent = build_latent(spec, registry)
        student = build_student(spec, registry, teacher, latent)
        if start and weights and spec.student.start is not None:
            with located(spec.source):
                load_start(spec, student, latent, process, DataShape.of(data))
    parts = Parts(data, process, teacher, student, latent)
    return dataclasses.replace(parts, objective=build_objective(spec, registry, parts)) if weights else parts


def build_data(spec: Spec, registry: Registry) -> DataSource:
    """The data set of `data:`."""
    return _create(spec, registry, "datasets", spec.data, {}, "data")


def build_process(spec: Spec, registry: Registry, data: Data) -> ForwardProcess:
    """The forward process of `process:` on the data's states."""
    return _create(spec, registry, "processes", spec.process, {"data_states": data.num_states}, "process")


def build_teacher(
    spec: Spec, registry: Registry, data: Data, process: ForwardProcess, *, weights: bool = True
) -> Teacher:
    """The teacher of `teacher:`; in training mode of its own when it is pretrained, frozen when it is distilled.

    With `teacher.run` its weights, and the options that the entry leaves out, are those of that run's export; if that run
    distilled a student, the teacher is made of `student` and its `latent`, which its constructor asks for.
    Raises CheckpointError where its weights, whoever read them, hold NaN or infinity.
    """
    sizes = vars(DataShape.of(data)) | {"num_states": process.num_states}
    provided = {"process": process, "data": data, "weights": weights, **sizes}
    with _seeded(spec.seed, "teacher"):
        with located(spec.source):
            entry, trained = trained_entry(spec.teacher)
            if trained is not None and trained.is_student:
                check_takes_student(registry, entry, trained)
                provided |= _student_of(trained, data)
        teacher = _create(spec, registry, "teachers", entry, provided, "teacher")
        with located(spec.source):
            if fault := teacher_lacks(teacher):
                raise SpecError(f"teacher: {fault}")
    if trained is not None and weights and not trained.is_student:
        load_into(teacher.backbone, trained.folder)
    elif weights:  # whoever read them: a plugin's own teacher, or a network that reads a file as it is made
        with located(spec.source):
            require_finite(teacher.network.state_dict(), "teacher", dict(teacher.network.named_buffers()))
    return teacher.freeze() if spec.task == "distill" else teacher


def teacher_needs_data(spec: Spec, registry: Registry) -> bool:
    """Whether the teacher's constructor wants the data themselves and not their sizes: its `data` is annotated with a data set."""
    try:
        factory = registry.resolve("teachers", spec.teacher["name"])
        wanted = inspect.signature(factory, eval_str=True).parameters["data"].annotation
    except (KeyError, TypeError, ValueError, NameError, AttributeError):
        return False
    return isinstance(wanted, type) and issubclass(wanted, DataSource)


def build_latent(spec: Spec, registry: Registry) -> LambdaSampler:
    """The λ sampler of `latent:`."""
    return _create(spec, registry, "lambda_samplers", spec.latent, {}, "latent")


def build_student(spec: Spec, registry: Registry, teacher: Teacher, latent: LambdaSampler) -> MixtureStudent:
    """The teacher's backbone, warm-started or shared, with the head of `student.head`. SpecError if the two do not fit."""
    with _seeded(spec.seed, "student"):
        with located(spec.source):
            lora = spec.student.lora
            backbone = (
                share_base(teacher, **dataclasses.asdict(lora)) if lora is not None else teacher.student_backbone()
            )
        provided = {"latent_dim": latent.dim, "backbone": backbone, "num_positions": teacher.num_positions}
        head = _create(spec, registry, "student_heads", spec.student.head, provided, "student.head")
    teacher.warm_start(head)
    with located(spec.source):
        check_head(registry, spec.student.head["name"], head.needs, type(backbone), backbone.accepts)
    return MixtureStudent(
        backbone, head, parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )


def load_start(
    spec: Spec, student: MixtureStudent, latent: LambdaSampler, process: ForwardProcess, shape: DataShape
) -> None:
    """Gives the student the weights of the trained one that `student.start` names.

    Raises SpecError unless that one is a student of data of the same shape, of the same process, λ sampler and head, and CheckpointError
    unless its network is this one.
    """
    run = run_folder(spec.student.start.run, "student.start.run")
    trained = trained_run(run, "student.start.run")
    where = f"student.start.run: {run}"
    if not trained.is_student:
        raise SpecError(
            f"{where} is a run of task {trained.spec.get('task')!r}; a student starts from a run of `distill`"
        )
    other = Spec.from_dict(trained.spec, source=str(trained.folder / "config.json"))
    found = DataShape.of(read_carried(trained.folder) or shape)
    if found != shape:
        raise SpecError(f"{where} was trained on {found}, but the data here have {shape}")
    names = Registry.default(other.plugins)
    parts = {"process": (build_process(other, names, shape), process), "latent": (build_latent(other, names), latent)}
    for what, (theirs, ours) in parts.items():
        if fingerprint(theirs) != fingerprint(ours):
            raise SpecError(
                f"{where} was trained with {what} {getattr(other, what)}, but it is {getattr(spec, what)} here"
            )
    if other.student.head != spec.student.head:
        raise SpecError(f"{where} has student.head {other.student.head}, but it is {spec.student.head} here")
    load_into(student, trained.folder)


def build_posterior(
    spec: Spec, registry: Registry, shape: "Data", teacher: Teacher, latent: LambdaSampler
) -> Posterior | None:
    """The network of `objective.proposal.posterior` alone, without the objective around it; None where λ is not proposed."""
    proposal = spec.objective.get("proposal")
    if not isinstance(proposal, Mapping) or "posterior" not in proposal:
        return None
    provided = {"latent": latent, "process": teacher.process, "teacher": teacher, **vars(DataShape.of(shape))}
    return _create(spec, registry, "posteriors", proposal["posterior"], provided, "objective.proposal.posterior")


def build_objective(spec: Spec, registry: Registry, parts: Parts) -> Objective:
    """The objective of `objective:`, given the parts by the names of its constructor's parameters."""
    data: Any = parts.data
    shape = DataShape.of(data)
    provided = {key: value for key, value in vars(parts).items() if value is not None and key != "data"} | vars(shape)
    provided["open_split"] = lambda: data.checked_split("train", parts.process)
    if parts.process is None:
        return _create(spec, registry, "objectives", spec.objective, provided, "objective")
    inside = provided | {"num_states": parts.process.num_states}  # of the networks that it has of its own
    with _seeded(spec.seed, "objective"):
        return _create(spec, registry, "objectives", spec.objective, provided, "objective", inside)


def build_sampler(
    spec: Spec,
    registry: Registry,
    process: ForwardProcess,
    teacher: Teacher | None = None,
    data: Data | None = None,
    device: torch.device | str = "cpu",
) -> Sampler:
    """The sampler of `eval.sampler`; one that guides or finishes with a teacher is given it, if it is at hand.

    That is `teacher`, unless `eval.sampler.teacher` names another one of the same data; it is built on `device`.
    """
    _need_eval(spec)
    entry, named = spec.eval.sampler_and_teacher()
    if named is not None:
        other = dataclasses.replace(spec, teacher=named, task="distill")
        teacher = build_teacher(other, registry, data or build_data(spec, registry), process).to(device)
    provided = {"process": process, "teacher": None if teacher is None else LentTeacher.of(teacher)}
    return _create(spec, registry, "samplers", entry, provided, "eval.sampler")


def build_metrics(spec: Spec, registry: Registry, data: DataSource, process: ForwardProcess) -> dict[str, Metric]:
    """The metrics of `eval.metrics`, by name."""
    _need_eval(spec)
    provided = {"data": data, "process": process, "judge": spec.eval.judge}
    return {
        entry["name"]: _create(spec, registry, "metrics", entry, provided, f"eval.metrics[{i}]")
        for i, entry in enumerate(spec.eval.metrics)
    }


def shares_base(spec: Spec) -> bool:
    """Whether teacher and student are one copy of the weights, with adapters for the student."""
    return spec.student is not None and spec.student.lora is not None


def portable(spec: Spec, teacher: Teacher | None) -> Spec:
    """The spec that rebuilds the architecture alone: the teacher's entry names no file of weights, unless it is a shared base, and no
    run that the student started from."""
    if spec.student is not None:
        spec = dataclasses.replace(spec, student=dataclasses.replace(spec.student, start=None))
    if teacher is None or shares_base(spec):
        return spec
    entry, trained = trained_entry(spec.teacher)
    if trained is not None and trained.is_student:  # a student's student has the network of the first teacher's
        return dataclasses.replace(spec, teacher=trained.spec["teacher"])
    return dataclasses.replace(spec, teacher=teacher.portable_entry(teacher.resolved_entry(entry)))


def _create(spec: Spec, registry: Registry, *given: Any) -> Any:
    """As `create`; errors name the spec's file."""
    with located(spec.source):
        return create(registry, *given)


def _student_of(trained: TrainedRun, data: Data) -> dict[str, Any]:
    """{"student": the run's student with its weights, "latent": its λ sampler}."""
    carried = Spec.from_dict(trained.spec, source=str(trained.folder / "config.json"))
    if shares_base(carried):
        raise SpecError(
            f"teacher.run: the student of {trained.run} is adapters of its teacher; it cannot be a teacher itself"
        )
    parts = build(carried, Registry.default(carried.plugins), weights=False, data=DataShape.of(data))
    load_into(parts.student, trained.folder)
    return {"student": parts.student, "latent": parts.latent}


@contextlib.contextmanager
def _seeded(seed: int, part: str) -> Iterator[None]:
    """Initial weights by the spec's seed, the caller's generator left as it was; each part has a stream of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(Draws(seed, path=("initial weights", part)).scalar() * 2**53))
        yield


def _need_eval(spec: Spec) -> None:
    if spec.eval is None:
        needed = "sampler, metrics, steps, samples, seeds, batch_size"
        raise SpecError(f"{spec.source}: eval: missing; evaluation needs {needed}.")
