"""Small masked systems that tests build in one line."""

import torch

from di4c.mixture.student import MixtureStudent
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.heads.adaln import AdaLN, Late
from di4c_plugins.heads.readout import Readout
from di4c_plugins.heads.token import Token
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.denoiser import DenoiserTeacher

HEADS = {
    "token": lambda dim, backbone: Token(dim, backbone),
    "adaln": lambda dim, backbone: AdaLN(dim, backbone),
    "late": lambda dim, backbone: Late(dim, backbone, blocks=1),
    "readout": lambda dim, backbone: Readout(dim, backbone, rank=16),
}


def tiny_teacher(
    positions: int = 6, data_states: int = 5, num_classes: int | None = 3, seed: int = 0
) -> DenoiserTeacher:
    """A DiT of width 16 with random weights everywhere (also those that start at zero)."""
    process = Absorbing(data_states)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = DiT(positions, process.num_states, width=16, depth=2, heads=2, num_classes=num_classes)
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return DenoiserTeacher(process, positions, backbone=backbone, parameterisation=Subs(process)).freeze()


def tiny_student(teacher: DenoiserTeacher, head: str = "late", latent_dim: int = 1, seed: int = 1) -> MixtureStudent:
    """A student of the teacher with the named head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = teacher.student_backbone()
        made = HEADS[head](latent_dim, backbone)
    return MixtureStudent(
        backbone, made, parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )
