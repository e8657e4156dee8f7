"""Generation with a mixture student: the output head on the positions that are still open and draws by inversion, or plainly."""

import argparse
import itertools

import torch
from torch import Tensor

from benchmarks import systems
from benchmarks.measure import Work
from di4c.contracts import Draws
from di4c.engine.compiling import compile_backbones
from di4c.engine.graphs import replay_backbones
from di4c.mixture.student import mixture_denoiser
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.processes.absorbing import Absorbing

NAMES = ["project", "plain"]
SHAPES = "system head B D S H blocks steps dtype compile"
SIZES: systems.Sizes = {
    "small": {"batch": 4, "positions": 128, "states": 50258, "width": 256, "depth": 12},
    "text": {"batch": 16, **systems.TEXT},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The system, its sizes, the student's head and the number of steps."""
    systems.add_arguments(parser, SIZES)
    systems.add_head_arguments(parser, "text: token, small: late")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="torch.compile this project's network")
    parser.add_argument("--no-graphs", dest="graphs", action="store_false", help="on CUDA, replay no passes")


def settle(arguments: argparse.Namespace) -> None:
    systems.settle(arguments, SIZES)
    arguments.head = arguments.head or ("token" if arguments.system == "text" else "late")


def rates(arguments: argparse.Namespace, found: dict, device: str) -> dict:
    """Tokens of the finished sequences a second."""
    return {"tokens_per_second": round(arguments.batch * arguments.positions / found["seconds"], 1)}


def build(arguments: argparse.Namespace, name: str) -> Work:
    process = systems.make_process(arguments)
    student = systems.make_student(arguments, systems.make_teacher(arguments, process), arguments.head)
    student.to(systems.DTYPES[arguments.dtype]).eval()
    sampler = systems.make_sampler(arguments, process)
    if arguments.compile and name == "project":
        compile_backbones(student)
    elif arguments.graphs and name == "project":
        replay_backbones(student)
    draws = Draws(0, count=arguments.batch, device=arguments.device)
    x_1 = process.prior(arguments.positions, draws)

    @torch.no_grad()
    def work() -> dict:
        denoiser = mixture_denoiser(student, Uniform(), draws.child("lambda"))
        if name == "project":
            x = sampler.sample(denoiser, x_1, arguments.steps, None, draws.child("sampler"))
        else:
            x = _plain_sample(denoiser, process, x_1, arguments.steps)
        return {"distinct_tokens": int(x.unique().numel())}

    return work


def _plain_sample(denoiser, process: Absorbing, x: Tensor, steps: int) -> Tensor:
    """Every position read out at every step, float64 Gumbel noise over the vocabulary."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64, device=x.device)
    for t, s in itertools.pairwise(times):
        prediction = denoiser(x, t.expand(len(x)), None)
        log_p = prediction.log_probs(torch.arange(x.numel(), device=x.device))[:, 0].double().view(*x.shape, -1)
        noise = -(-torch.rand_like(log_p).log()).log()
        revealed = torch.rand(x.shape, device=x.device) >= process.schedule.masked(s) / process.schedule.masked(t)
        x = torch.where((x == process.mask_index) & revealed, (log_p + noise).argmax(-1), x)
    return x
