"""The pixel system's parts hold their contracts, and train and sample together."""

import pytest
import torch

from di4c.contracts import Draws, Raw
from di4c.losses.objective import Di4C
from di4c.losses.pretraining import NELBO
from di4c.losses.terms import ConsistencyTerm, DataTerm, DistillationTerm, Gate, TeacherStep
from di4c.mixture.student import MixtureStudent, mixture_denoiser
from di4c.testing import (
    check_backbone,
    check_dataset,
    check_head,
    check_objective,
    check_process,
    check_sampler,
    check_teacher,
)
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet
from di4c_plugins.datasets.pixels import Images, PixelData
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.heads.adaln import AdaLN, Late
from di4c_plugins.heads.sinusoidal_embedding import SinusoidalEmbedding
from di4c_plugins.latents.unit_cube import Uniform as UniformLambda
from di4c_plugins.processes.birth_death import BirthDeath
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.processes.uniform import Uniform
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.samplers.tau_leaping import TauLeaping
from di4c_plugins.samplers.tauldr_ancestral import TauLDRAncestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from di4c_plugins.times.low_or_uniform import LowOrUniform
from di4c_plugins.times.samplers import LowDiscrepancyTime, TimeAboveStep

S, SHAPE, D = 8, (1, 4, 4), 16
PROCESSES = {
    "gaussian": DiscretisedGaussian(S, rate_sigma=2.0, target_sigma=16.0, time_base=0.5, time_exponential=100.0),
    "birth-death": BirthDeath(S, sigma_min=0.3, sigma_max=30.0),
    "uniform": Uniform(S, speed=6.0),
}


class Stripes(PixelData):
    """Images of one level each, with their level's parity as label."""

    def __init__(self):
        super().__init__(SHAPE, S, num_labels=2)

    def read(self, name):
        level = torch.arange(24) % S
        pixels = (level * 32)[:, None, None, None].expand(24, *SHAPE).to(torch.uint8)
        return Images(pixels.numpy().copy(), (level % 2).numpy())


def a_teacher(process=PROCESSES["gaussian"], **options):
    torch.manual_seed(0)
    backbone = TauLDRUNet(
        D, S, shape=list(SHAPE), channels=8, multipliers=[1, 2], res_blocks=1, attention_at=1, dropout=0.0, **options
    )
    return DenoiserTeacher(process, D, backbone=backbone, parameterisation=Raw())


def a_student(teacher, head=SinusoidalEmbedding, **options):
    torch.manual_seed(1)
    backbone = teacher.student_backbone()
    return MixtureStudent(
        backbone, head(1, backbone, **options), parameterisation=teacher.parameterisation, num_states=S
    )


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_processes(name):
    check_process(PROCESSES[name])


def test_backbone_and_teacher():
    check_backbone(a_teacher().backbone.eval(), num_positions=D, num_states=S)
    check_backbone(a_teacher(num_classes=3).backbone.eval(), num_positions=D, num_states=S, num_classes=3)
    check_teacher(a_teacher())


@pytest.mark.parametrize(
    ("head", "options"),
    [(SinusoidalEmbedding, {}), (SinusoidalEmbedding, {"start": 4}), (AdaLN, {}), (Late, {"blocks": 3})],
)
def test_heads(head, options):
    """In float64: in float32 the logarithm of a bin with almost no mass moves by 5e-4 with the size of the batch."""
    teacher = a_teacher().freeze()
    backbone = teacher.student_backbone().eval().double()
    check_head(head(1, backbone, **options), backbone, latent_dim=1, teacher=teacher)


def test_atoms_reach_the_network_as_different_codes():
    """The U-Net has two features a pixel, which must not be the width of λ's code."""
    backbone = a_teacher().student_backbone()
    atoms = torch.eye(6)[None]
    embedding = Late(6, backbone, blocks=3).context(atoms).embedding
    distance = torch.cdist(embedding, embedding) + torch.eye(6)
    assert distance.min() > 0.1 and torch.linalg.matrix_rank(embedding, atol=1e-3) >= 5


@pytest.mark.parametrize("sampler", [Ancestral, TauLDRAncestral, TauLeaping])
def test_samplers(sampler):
    teacher = a_teacher().freeze()
    check_sampler(sampler(teacher.process), teacher)


def test_dataset():
    check_dataset(Stripes())


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_pretraining_lowers_the_bound(name):
    """Adam on images of one level; the bound is compared on the same draws."""
    teacher, data = a_teacher(PROCESSES[name]), Stripes()
    objective = NELBO(teacher, time=LowDiscrepancyTime())
    check_objective(objective, data)
    batch = data.split("train").batch(torch.arange(24))
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        loss = objective(batch, Draws(7, count=24, path=(step % 4,)), step)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def paper_objective(teacher, student):
    """The published pixel run, small."""
    process = teacher.process
    return Di4C(
        teacher, student, latent=UniformLambda(), sampler=TauLDRAncestral(process), components=3, targets=3,
        time=TimeAboveStep(low=0.01), teacher_step=TeacherStep("log-uniform", smallest=1e-3, largest=1e-2),
        data=DataTerm(1.0, ControlVariate(), Gate("sigmoid", 1.0)), consistency=ConsistencyTerm(1.0, ControlVariate()),
        distillation=DistillationTerm(1.0), distillation_time=LowOrUniform(low=0.01, high=0.02, probability=0.5),
        distillation_copies=3, target_mode="train",
    )  # fmt: skip


def test_the_papers_objective():
    teacher = a_teacher().freeze()
    student = a_student(teacher)
    objective = paper_objective(teacher, student)
    check_objective(objective, Stripes())
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(parameter.grad is None for parameter in teacher.backbone.parameters())


def test_a_student_samples():
    teacher = a_teacher().freeze()
    student = a_student(teacher).eval()
    draws = Draws(3, count=5)
    x_1 = teacher.process.prior(D, draws.child("prior"))
    denoiser = mixture_denoiser(student, UniformLambda(), draws.child("lambda"))
    x_0 = TauLDRAncestral(teacher.process).sample(denoiser, x_1, 3, None, draws.child("sampler"))
    assert x_0.shape == (5, D) and x_0.min() >= 0 and x_0.max() < S
