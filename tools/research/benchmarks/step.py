"""A training step of a transformer student: target, student, loss, gradients, AdamW."""

import argparse
import time
from unittest import mock

import torch
from torch import Tensor

from benchmarks import systems
from benchmarks.measure import Work
from benchmarks.terms import plain_terms
from di4c.contracts import Batch, Draws
from di4c.engine.compiling import compile_backbones
from di4c.engine.graphs import replay_backbones
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, Gate, TeacherStep
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.times.samplers import TimeGrid

NAMES = ["late", "token", "readout", "plain", "each"]
SHAPES = "system B M N D S H blocks late_blocks t x_u enumerated data_only dtype recompute compile"
STEP = 1 / 1024
SIZES: systems.Sizes = {"small": {"positions": 128, "states": 1025, "width": 256, "depth": 12}, "text": systems.TEXT}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The system, its sizes and the student's head; `plain` has the token head and the plain loss, `each` shares no equal inputs."""
    systems.add_arguments(parser, SIZES)
    systems.add_head_arguments(parser, "measure this head only; `token` of the text system if none is named")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--targets", type=int, default=None, help="N; as many as components if not given")
    parser.add_argument(
        "--x-u", choices=["each", "shared"], help="one x_u for each target or shared; text: each, small: shared"
    )
    parser.add_argument("--time", type=float, default=0.5)
    parser.add_argument("--enumerate", action="store_true", help="λ has as many atoms as components, all of them taken")
    parser.add_argument("--data-only", action="store_true", help="no consistency term")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks")
    parser.add_argument("--no-graphs", dest="graphs", action="store_false", help="on CUDA, replay no passes")
    parser.add_argument(
        "--recompute", action="store_true", help="recompute the small trunk's blocks in the backward pass"
    )


def settle(arguments: argparse.Namespace) -> None:
    """Fills in what depends on other arguments; refuses what does not go together."""
    systems.settle(arguments, SIZES)
    text = arguments.system == "text"
    arguments.targets = arguments.targets or arguments.components
    arguments.x_u = arguments.x_u or ("each" if text else "shared")
    if not arguments.only and (arguments.head or text):
        arguments.only = [arguments.head or "token"]
    arguments.only = arguments.only or ["late", "token", "readout", "plain"]
    if "each" in arguments.only and not (arguments.enumerate and len(arguments.only) == 2):
        raise SystemExit(
            "bench.py step: `each` is for --enumerate, beside the head that it is compared with: --only readout each"
        )
    if arguments.x_u == "each" and "plain" in arguments.only:
        raise SystemExit("bench.py step: the plain loss has one x_u for all targets: choose --x-u shared, or a --head")


def build(arguments: argparse.Namespace, name: str) -> Work:
    """The work of one measurement; its report says how long each part took."""
    objective = _objective(arguments, name)
    if arguments.compile:
        compile_backbones(objective, objective.teacher.network)
    elif arguments.graphs and name != "plain":
        replay_backbones(objective, objective.teacher.network)
    optimizer = with_state(torch.optim.AdamW(objective.parameters(), lr=1e-5, fused=True))
    x_0 = torch.randint(arguments.states - 1, (arguments.batch, arguments.positions), device=arguments.device)
    loss_of = {"plain": _plain_loss, "each": _loss_of_each}.get(name, _project_loss)

    def work() -> dict:
        clock = Clock(arguments.device)
        loss = loss_of(objective, Batch(x_0), Draws(0, count=arguments.batch, device=arguments.device), clock)
        loss.mean().backward()
        clock.mark("trunk backward")
        norms = gradient_norms(objective) if arguments.enumerate else {}
        optimizer.step()
        optimizer.zero_grad()
        clock.mark("optimizer")
        found = {"loss": float(loss.detach().mean()), "milliseconds": clock.found()}
        return found | ({"gradient_norms": norms} if norms else {})

    return work


def gradient_norms(objective: Di4C) -> dict[str, float]:
    """Of every parameter: what two ways of one step must share."""
    return {name: float(p.grad.norm()) for name, p in objective.model.named_parameters() if p.grad is not None}


def with_state(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer after an empty step: its state belongs to what is held before the work begins."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


class Clock:
    """Milliseconds between marks: of the host, or on CUDA of the device, which the marks do not hold up."""

    def __init__(self, device: str):
        self.cuda = device == "cuda"
        self.marks = [("", self._now())]

    def _now(self) -> "float | torch.cuda.Event":
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def mark(self, name: str) -> None:
        """Ends the part `name`, which began at the last mark."""
        self.marks.append((name, self._now()))

    def found(self) -> dict[str, float]:
        """Part → milliseconds; waits for the device."""
        if self.cuda:
            torch.cuda.synchronize()
        spent: dict[str, float] = {}
        for (_, before), (name, now) in zip(self.marks, self.marks[1:], strict=False):
            milliseconds = before.elapsed_time(now) if self.cuda else 1e3 * (now - before)
            spent[name] = round(spent.get(name, 0.0) + milliseconds, 1)
        return spent


def _objective(arguments: argparse.Namespace, name: str) -> Di4C:
    process = systems.make_process(arguments)
    teacher = systems.make_teacher(arguments, process).freeze()
    compared = {"plain": "token", "each": next((n for n in arguments.only if n != "each"), None)}
    latent = Categorical(atoms=arguments.components) if arguments.enumerate else Uniform()
    student = systems.make_student(arguments, teacher, compared.get(name, name), latent.dim)
    student.to(systems.DTYPES[arguments.dtype]), teacher.network.to(systems.DTYPES[arguments.dtype])
    estimator, sampler = ControlVariate(), systems.make_sampler(arguments, process)
    return Di4C(
        teacher, student, latent=latent, sampler=sampler, components=arguments.components, targets=arguments.targets,
        x_u=arguments.x_u, time=TimeGrid(points=[arguments.time]), teacher_step=TeacherStep("constant", size=STEP),
        data=DataTerm(1.0, estimator, Gate("constant", 1.0)),
        consistency=None if arguments.data_only else ConsistencyTerm(1.0, estimator),
    )  # fmt: skip


def _project_loss(objective: Di4C, batch: Batch, draws: Draws, clock: Clock) -> Tensor:
    """The objective's loss [B]; the student's own forward pass is told apart from what comes before and after it."""
    student = objective.model
    predict = type(student).predict

    def timed(*arguments, **options):
        if not torch.is_grad_enabled():  # the target's
            return predict(student, *arguments, **options)
        clock.mark("target")
        prediction = predict(student, *arguments, **options)
        clock.mark("trunk forward")
        prediction.features.register_hook(lambda _: clock.mark("output head backward"))
        return prediction

    student.predict = timed
    loss = objective(batch, draws, 0)["loss"]
    clock.mark("output head forward")
    return loss


def _loss_of_each(objective: Di4C, batch: Batch, draws: Draws, clock: Clock) -> Tensor:
    """The same with every example evaluated, whatever its input."""
    with mock.patch("di4c.losses.inputs.equal_inputs", return_value=None):
        return _project_loss(objective, batch, draws, clock)


def _plain_loss(objective: Di4C, batch: Batch, draws: Draws, clock: Clock) -> Tensor:
    """The same loss from the same draws, everything materialised."""
    law, student, teacher = objective.options, objective.model, objective.teacher
    t, _ = law.time.sample(draws.child("t"))
    x_t = teacher.process.corrupt(batch.x_0, t, draws.child("x_t"))
    u, x_u_draws = law.teacher_step.earlier(t, law.teacher_step.draw(draws)), draws.child("target", "x_u", 0)
    own, theirs = (law.latent.sample(law.components, draws.child(*n)) for n in (("lambda",), ("target", "lambda")))
    with torch.no_grad():
        x_u = law.sampler.step(teacher.predict, x_t, t, u, None, x_u_draws)
        target = student.predict(x_u, u, None, theirs.to(x_t.device))
        marginals = teacher.predict(x_t, t)
    clock.mark("target")
    prediction = student.predict(x_t, t, None, own.to(x_t.device))
    clock.mark("trunk forward")
    prediction.features.register_hook(lambda _: clock.mark("output head backward"))
    loss = plain_terms(prediction, target, marginals, batch.x_0, draws.child("target", "x_0"))
    clock.mark("output head forward")
    return loss
