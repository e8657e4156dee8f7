"""The systems that are measured: a masked process, a network with random weights, student heads and a sampler, at chosen sizes."""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from di4c.contracts import Backbone, Sampler, StudentHead
from di4c.mixture.student import MixtureStudent
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.heads.adaln import Late
from di4c_plugins.heads.readout import Readout
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.heads.token import Token
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher

HEADS = ("token", "late", "readout")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TEXT = {"positions": 1024, "states": 50258, "width": 768, "depth": 12, "conditioning": 128}
"""MDLM's small network."""

TEXT_RANK = 128
"""Of the readout head of the text system, if it is not told otherwise."""

Sizes = dict[str, dict]
"""System → argument → its value where none is given. small: the small DiT. text: MDLM's network and process, and the λ token of the
published language students."""


def add_arguments(parser: argparse.ArgumentParser, sizes: Sizes) -> None:
    """The system, if there are several, and the sizes of its network."""
    told = "; ".join(f"{system}: {values}" for system, values in sizes.items())
    if len(sizes) > 1:
        parser.add_argument("--system", choices=sizes, default="small", help=f"sizes if not given: {told}")
    for name in dict.fromkeys(name for values in sizes.values() for name in values):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--heads", type=int, help="of the attention; one for every 64 of the width if not given")
    parser.add_argument("--mlp-ratio", type=int, default=4)


def add_head_arguments(parser: argparse.ArgumentParser, told: str) -> None:
    parser.add_argument("--head", choices=HEADS, help=told)
    parser.add_argument("--late-blocks", type=int, default=2)
    parser.add_argument("--rank", type=int, help=f"of the readout head; small: the width, text: {TEXT_RANK}")


def settle(arguments: argparse.Namespace, sizes: Sizes) -> None:
    for name, value in sizes[arguments.system].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    arguments.heads = arguments.heads or max(1, arguments.width // 64)


def make_process(arguments: argparse.Namespace) -> Absorbing:
    """Masked diffusion; of the text system as it was published, noised on a grid of 1024 times."""
    if arguments.system == "text":
        return Mdlm(arguments.states - 1, corrupt_grid=1024)
    return Absorbing(arguments.states - 1)


def make_sampler(arguments: argparse.Namespace, process: Absorbing) -> Sampler:
    return MdlmAncestral(process) if arguments.system == "text" else Ancestral(process)


def make_teacher(arguments: argparse.Namespace, process: Absorbing) -> DenoiserTeacher:
    """A teacher with random weights on the device, float32."""
    torch.manual_seed(0)
    sizes = arguments.positions, process.num_states
    shape = {name: getattr(arguments, name) for name in ("width", "depth", "heads", "mlp_ratio")}
    with torch.device(arguments.device):
        if arguments.system == "text":
            backbone: Backbone = MdlmDiT(*sizes, **shape, conditioning_width=arguments.conditioning)
            torch.nn.init.normal_(backbone.vocab_embed.embedding, std=arguments.width**-0.5)
        else:
            backbone = DiT(*sizes, **shape, recompute=getattr(arguments, "recompute", False))
        torch.nn.init.normal_(backbone.readout.linear.weight, std=arguments.width**-0.5)
    return DenoiserTeacher(process, arguments.positions, backbone=backbone, parameterisation=Subs(process))


def make_student(
    arguments: argparse.Namespace, teacher: DenoiserTeacher, head: str, latent_dim: int = 1
) -> MixtureStudent:
    """A student of the (frozen) teacher with the named head, on the device, float32."""
    backbone = teacher.student_backbone()
    text = arguments.system == "text"
    rank = arguments.rank or (TEXT_RANK if text else arguments.width)
    heads: dict[str, Callable[..., StudentHead]] = {
        "token": SinusoidalToken if text else Token,
        "late": partial(Late, blocks=arguments.late_blocks),
        "readout": partial(Readout, rank=rank),
    }
    made = heads[head](latent_dim, backbone).to(arguments.device)
    return MixtureStudent(
        backbone, made, parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )
