"""The parameters of a spec's teacher and student, counted on the meta device."""

from dataclasses import dataclass

import torch
from torch import nn

from di4c.config.build import (
    DataShape,
    build_latent,
    build_posterior,
    build_process,
    build_student,
    build_teacher,
    shares_base,
)
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.contracts import Backbone, DataSource, LambdaSampler, Teacher
from di4c.errors import SpecError
from di4c.mixture.student import MixtureStudent


@dataclass(frozen=True)
class Skeleton:
    """A spec's networks without memory of their own; `trained` is what DeepSpeed is given, and with it the posterior, if λ is proposed."""

    shape: DataShape
    num_states: int
    teacher: Teacher
    student: MixtureStudent | None
    latent: LambdaSampler | None
    posterior: nn.Module | None = None

    @property
    def trained(self) -> nn.Module:
        return self.teacher.backbone if self.student is None else self.student

    @property
    def backbone(self) -> Backbone:
        """The network of `trained`."""
        return self.teacher.backbone if self.student is None else self.student.backbone


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters: trained, frozen beside them (a shared base), of the largest tensor; and bytes: the teacher's own, its
    output head's among them, the frozen ones'."""

    trained: int
    frozen: int
    largest: int
    teacher_bytes: int
    frozen_bytes: int
    teacher_output_head_bytes: int = 0


def skeleton(spec: Spec, registry: Registry, data: DataSource) -> Skeleton:
    """The networks of a spec on the meta device.

    A teacher whose architecture only its file of weights tells is read first. Raises SpecError for the task `tokenizer`.
    """
    if spec.task == "tokenizer":
        raise SpecError(f"{spec.source}: plan is for the tasks pretrain and distill; a tokenizer has no process")
    shape, process = DataShape.of(data), build_process(spec, registry, data)
    try:
        with torch.device("meta"):
            teacher = build_teacher(spec, registry, shape, process, weights=False)
    except SpecError:
        teacher = build_teacher(spec, registry, shape, process)
    teacher.backbone.to("meta")
    if spec.task == "pretrain":
        return Skeleton(shape, process.num_states, teacher, None, None)
    latent = build_latent(spec, registry)
    with torch.device("meta"):
        student = build_student(spec, registry, teacher, latent)
        posterior = build_posterior(spec, registry, shape, teacher, latent)
    return Skeleton(shape, process.num_states, teacher, student, latent, posterior)


def sizes(spec: Spec, networks: Skeleton) -> Sizes:
    """The parameters of the networks; with a shared base the teacher has none of its own."""
    parameters = [p for part in (networks.trained, networks.posterior) if part is not None for p in part.parameters()]
    trained = [p for p in parameters if p.requires_grad]
    frozen = [p for p in parameters if not p.requires_grad]
    own = networks.student is not None and not shares_base(spec)
    return Sizes(
        trained=sum(p.numel() for p in trained),
        frozen=sum(p.numel() for p in frozen),
        largest=max(p.numel() for p in trained),
        teacher_bytes=_bytes(list(networks.teacher.backbone.parameters())) if own else 0,
        frozen_bytes=_bytes(frozen),
        teacher_output_head_bytes=_bytes(list(networks.teacher.backbone.readout.parameters())) if own else 0,
    )


def _bytes(tensors: list[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
