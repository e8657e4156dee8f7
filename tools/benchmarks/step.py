"""A training step of a small transformer student: target, student, loss, gradients, AdamW."""

import argparse
import time

import torch
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.heads.adaln import Late
from di4c_plugins.heads.readout import Readout
from di4c_plugins.heads.token import Token
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from torch import Tensor

from benchmarks.measure import Work
from benchmarks.terms import plain_terms
from di4c.algorithm.objective import ConsistencyTerm, DataTerm, Di4C
from di4c.algorithm.scene import draw_scene
from di4c.algorithm.student import MixtureStudent
from di4c.algorithm.times import Gate, StepLaw, TimeGrid
from di4c.contracts import CHUNK_BYTES, Batch, Draws
from di4c.engine.compiling import compile_backbones

NAMES = ["late", "token", "readout", "plain"]
STEP = 1 / 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes; `plain` has the token head and the plain loss."""
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--targets", type=int, default=None, help="N; as many as components if not given")
    parser.add_argument("--positions", type=int, default=128)
    parser.add_argument("--states", type=int, default=1025)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--heads", type=int, default=None, help="of the attention; one for every 64 of the width if not given")
    parser.add_argument("--mlp-ratio", type=float, default=4)
    parser.add_argument("--late-blocks", type=int, default=2)
    parser.add_argument("--time", type=float, default=0.5)
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks")
    parser.add_argument("--recompute", action="store_true", help="recompute the trunk's blocks in the backward pass")
    parser.add_argument("--chunk-megabytes", type=float, default=CHUNK_BYTES / 2**20)


def shapes(arguments: argparse.Namespace) -> dict:
    """The sizes by their symbols."""
    return {
        "B": arguments.batch, "M": arguments.components, "N": arguments.targets or arguments.components,
        "D": arguments.positions, "S": arguments.states, "H": arguments.width, "blocks": arguments.depth,
        "late_blocks": arguments.late_blocks, "t": arguments.time, "recompute": arguments.recompute, "compile": arguments.compile,
    }


def build(arguments: argparse.Namespace, name: str) -> Work:
    """The work of one measurement; its report says how long each part took."""
    objective = _objective(arguments, name)
    if arguments.compile:
        compile_backbones(objective, objective.teacher.network)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-5, fused=True)
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # its state belongs to the baseline
    optimizer.zero_grad()
    x_0 = torch.randint(arguments.states - 1, (arguments.batch, arguments.positions), device=arguments.device)
    loss_of = _plain_loss if name == "plain" else _project_loss

    def work() -> dict:
        clock = Clock(arguments.device)
        loss = loss_of(objective, Batch(x_0), Draws(0, count=arguments.batch, device=arguments.device), clock)
        loss.mean().backward()
        clock.mark("trunk backward")
        optimizer.step()
        optimizer.zero_grad()
        clock.mark("optimizer")
        return {"loss": float(loss.detach().mean()), "milliseconds": clock.found}

    return work


class Clock:
    """Milliseconds between marks."""

    def __init__(self, device: str):
        self.device, self.found, self.last = device, {}, time.perf_counter()

    def mark(self, name: str) -> None:
        """Ends the part `name`, which began at the last mark."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.found[name] = round(self.found.get(name, 0.0) + 1e3 * (now - self.last), 1)
        self.last = now


def _objective(arguments: argparse.Namespace, name: str) -> Di4C:
    torch.manual_seed(0)
    process, positions = Absorbing(arguments.states - 1), arguments.positions
    heads = arguments.heads or max(1, arguments.width // 64)
    shape = {"width": arguments.width, "depth": arguments.depth, "heads": heads, "mlp_ratio": arguments.mlp_ratio}
    backbone = DiT(positions, process.num_states, **shape, recompute=arguments.recompute).to(arguments.device)
    torch.nn.init.normal_(backbone.readout.linear.weight, std=arguments.width**-0.5)
    teacher = DenoiserTeacher(process, positions, backbone=backbone, parameterisation=Subs(process)).freeze()
    copy = teacher.student_backbone()
    heads = {
        "late": lambda: Late(1, copy, blocks=arguments.late_blocks),
        "readout": lambda: Readout(1, copy, rank=arguments.width),
        "token": lambda: Token(1, copy), "plain": lambda: Token(1, copy),
    }
    head = heads[name]().to(arguments.device)
    student = MixtureStudent(copy, head, parameterisation=teacher.parameterisation, num_states=process.num_states)
    estimator = ControlVariate()
    return Di4C(
        teacher, student, latent=Uniform(), sampler=Ancestral(process), components=arguments.components,
        targets=arguments.targets or arguments.components, time=TimeGrid(points=[arguments.time]),
        teacher_step=StepLaw("constant", size=STEP), data=DataTerm(1.0, estimator, Gate("constant", 1.0)),
        consistency=ConsistencyTerm(1.0, estimator), chunk_bytes=int(arguments.chunk_megabytes * 2**20),
    )


def _project_loss(objective: Di4C, batch: Batch, draws: Draws, clock: Clock) -> Tensor:
    """The objective's loss [B]; the student's own forward pass is told apart from what comes before it."""
    backbone = objective.model.backbone
    hooks = [
        backbone.register_forward_pre_hook(lambda *_: clock.mark("target") if torch.is_grad_enabled() else None),
        backbone.register_forward_hook(lambda *_: clock.mark("trunk forward") if torch.is_grad_enabled() else None),
    ]
    scene = draw_scene(objective.law, objective.teacher, objective.model, batch, draws)
    for hook in hooks:
        hook.remove()
    scene.student.features.register_hook(lambda _: clock.mark("readout backward"))
    loss = objective.loss(scene)["loss"]
    clock.mark("readout forward")
    return loss


@torch.no_grad()
def _x_u(objective: Di4C, x_t: Tensor, t: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    u = objective.law.teacher_step.earlier(t, objective.law.teacher_step.draw(draws))
    return objective.law.sampler.step(objective.teacher.predict, x_t, t, u, None, draws.child("target", "x_u", 0)), u


def _plain_loss(objective: Di4C, batch: Batch, draws: Draws, clock: Clock) -> Tensor:
    """The same loss from the same draws, everything materialised."""
    law, student, teacher = objective.law, objective.model, objective.teacher
    t, _ = law.time.sample(draws.child("t"))
    x_t = teacher.process.corrupt(batch.x_0, t, draws.child("x_t"))
    x_u, u = _x_u(objective, x_t, t, draws)
    lam = {name: law.latent.sample(law.components, draws.child(*name)) for name in (("lambda",), ("target", "lambda"))}
    with torch.no_grad():
        target = student.predict(x_u, u, None, lam[("target", "lambda")].to(x_t.device))
        marginals = teacher.predict(x_t, t)
    clock.mark("target")
    prediction = student.predict(x_t, t, None, lam[("lambda",)].to(x_t.device))
    clock.mark("trunk forward")
    prediction.features.register_hook(lambda _: clock.mark("readout backward"))
    loss = plain_terms(prediction, target, marginals, batch.x_0, draws.child("target", "x_0"))
    clock.mark("readout forward")
    return loss
