"""Random mixtures and small systems on a device."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from di4c.contracts import Batch, Draws, Modulation
from di4c.losses.inputs import LossInputs, draw_inputs
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, Gate, TeacherStep
from di4c.mixture.student import MixtureStudent
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.heads.adaln import AdaLN, Late
from di4c_plugins.heads.readout import Readout
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from di4c_plugins.times.samplers import TimeGrid
from tests.mixture.mixture_cases import Case, system

HEADS = {
    "token": lambda backbone: SinusoidalToken(1, backbone),
    "adaln": lambda backbone: AdaLN(1, backbone),
    "late": lambda backbone: Late(1, backbone, blocks=1),
    "readout": lambda backbone: Readout(1, backbone, rank=8),
}


def moved(made: SimpleNamespace, device: str) -> SimpleNamespace:
    """The system of a case on the device; its parameters are leaves there."""
    old = made.prediction
    leaf = lambda x: x.detach().to(device).requires_grad_()
    modulation = (
        None if old.modulation is None else Modulation(old.modulation.module.to(device), leaf(old.modulation.code))
    )
    prediction = replace(
        old, features=leaf(old.features), x_t=old.x_t.to(device), output_head=old.output_head.to(device), modulation=modulation,
        log_weights=None if old.log_weights is None else old.log_weights.to(device),
    )  # fmt: skip
    parameters = [prediction.features, *prediction.output_head.parameters()]
    parameters += [] if modulation is None else [*modulation.module.parameters(), modulation.code]
    return SimpleNamespace(
        prediction=prediction, x=made.x.to(device), q=made.q.to(device), case=made.case, parameters=parameters
    )


def with_truth(case: Case, dtype: torch.dtype, device: str) -> tuple[SimpleNamespace, SimpleNamespace]:
    """The system of the case in `dtype`, and in float64 with the numbers as `dtype` has rounded them."""
    made, truth = moved(system(case, dtype), device), moved(system(case, torch.float64), device)
    for exact, rounded in zip(truth.parameters, made.parameters, strict=True):
        exact.data.copy_(rounded.data)
    return made, truth


def stirred(module: nn.Module, seed: int = 0, std: float = 0.2) -> nn.Module:
    """The module with random numbers added to every parameter, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_((std * torch.randn(parameter.shape, generator=generator)).to(parameter))
    return module


def text_teacher(positions: int, states: int, width: int = 16, depth: int = 2) -> DenoiserTeacher:
    """MDLM's network with random weights, on the CPU."""
    torch.manual_seed(0)
    process = Mdlm(states - 1)
    backbone = MdlmDiT(positions, states, width=width, depth=depth, heads=2, conditioning_width=8, dropout=0.0)
    return DenoiserTeacher(process, positions, backbone=stirred(backbone), parameterisation=Subs(process)).freeze()


def text_student(teacher: DenoiserTeacher, head: str) -> MixtureStudent:
    """Its student with a stirred head, on the CPU."""
    backbone = teacher.student_backbone()
    made = stirred(HEADS[head](backbone), seed=1)
    return MixtureStudent(
        backbone, made, parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )


def text_objective(
    device: str,
    *,
    head: str = "token",
    positions: int = 8,
    states: int = 40,
    components: int = 3,
    x_u: str = "each",
    width: int = 16,
) -> Di4C:
    """Both terms of the loss with the control variate, t = ½, on the device."""
    teacher = text_teacher(positions, states, width)
    student = text_student(teacher, head)
    estimator = ControlVariate()
    objective = Di4C(
        teacher.to(device), student, latent=Uniform(), sampler=MdlmAncestral(teacher.process), components=components,
        targets=components, x_u=x_u, time=TimeGrid(points=[0.5]), teacher_step=TeacherStep("constant", size=0.1),
        data=DataTerm(1.0, estimator, Gate("constant", 1.0)), consistency=ConsistencyTerm(1.0, estimator),
    )  # fmt: skip
    return objective.to(device)


def inputs_of(objective: Di4C, x_0: Tensor, device: str) -> LossInputs:
    """What the loss looks at for x_0 [B, D], drawn on the device."""
    draws = Draws(3, count=len(x_0), device=device)
    return draw_inputs(objective.options, objective.teacher, objective.model, Batch(x_0.to(device)), draws)


def with_tokens(inputs: LossInputs, tokens: Tensor) -> LossInputs:
    """The inputs with these tokens [B, N, D] in place of those that were drawn for the target."""
    return replace(inputs, target_samples=tokens.to(inputs.target_samples))
