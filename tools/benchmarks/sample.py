"""Generation with a mixture student: readout of the positions that are still open and draws by inversion, or plainly."""

import argparse

import torch
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.heads.adaln import Late
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from torch import Tensor

from benchmarks.measure import Work
from di4c.algorithm.student import MixtureStudent, mixture_denoiser
from di4c.contracts import Draws
from di4c.engine.compiling import compile_backbones

NAMES = ["project", "plain"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes and the number of steps."""
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--positions", type=int, default=128)
    parser.add_argument("--states", type=int, default=50258)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--compile", action="store_true", help="torch.compile this project's network")
    parser.add_argument("--components", type=int, default=1, help=argparse.SUPPRESS)


def shapes(arguments: argparse.Namespace) -> dict:
    """The sizes by their symbols."""
    return {
        "B": arguments.batch, "D": arguments.positions, "S": arguments.states, "H": arguments.width,
        "blocks": arguments.depth, "steps": arguments.steps, "compile": arguments.compile,
    }


def build(arguments: argparse.Namespace, name: str) -> Work:
    """The work of one measurement."""
    torch.manual_seed(0)
    process, positions = Absorbing(arguments.states - 1), arguments.positions
    shape = {"width": arguments.width, "depth": arguments.depth, "heads": max(1, arguments.width // 64)}
    backbone = DiT(positions, process.num_states, **shape)
    torch.nn.init.normal_(backbone.readout.linear.weight, std=arguments.width**-0.5)
    student = MixtureStudent(
        backbone, Late(1, backbone, blocks=2), parameterisation=Subs(process), num_states=process.num_states
    ).to(arguments.device).eval()
    if arguments.compile and name == "project":
        compile_backbones(student)
    draws = Draws(0, count=arguments.batch, device=arguments.device)
    x_1 = process.prior(positions, draws)

    def work() -> dict:
        denoiser = mixture_denoiser(student, Uniform(), draws.child("lambda"))
        if name == "project":
            x = Ancestral(process).sample(denoiser, x_1, arguments.steps, None, draws.child("sampler"))
        else:
            x = _plain_sample(denoiser, process, x_1, arguments.steps)
        return {"distinct_tokens": int(x.unique().numel())}

    return work


@torch.no_grad()
def _plain_sample(denoiser, process: Absorbing, x: Tensor, steps: int) -> Tensor:
    """Every position read out at every step, float64 Gumbel noise over the vocabulary."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64, device=x.device)
    for t, s in zip(times[:-1], times[1:], strict=True):
        prediction = denoiser(x, t.expand(len(x)), None)
        log_p = prediction.log_probs(torch.arange(x.numel(), device=x.device))[:, 0].double().view(*x.shape, -1)
        noise = -(-torch.rand_like(log_p).log()).log()
        revealed = torch.rand(x.shape, device=x.device) >= process.schedule.masked(s) / process.schedule.masked(t)
        x = torch.where((x == process.mask_index) & revealed, (log_p + noise).argmax(-1), x)
    return x
