"""The data and consistency terms with the control variate on given features: values and all gradients."""

import argparse
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.parameterisations.subs import Subs
from tests.oracle.plain import plain_control_variate, plain_log_probs, plain_logits, plain_sums
from torch import Tensor

from benchmarks.measure import Work
from di4c.algorithm.mixture import Query, draw_with_marginals, statistics
from di4c.contracts import AffineReadout, Draws, Prediction, categorical

NAMES = ["project", "plain"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes: M = N components, D, S, H, and how many positions are masked."""
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--states", type=int, default=50258)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--masked", type=float, default=0.5, help="share of the positions that are masked at t")
    parser.add_argument("--chunk-megabytes", type=float, default=None)


@dataclass
class Setting:
    """Features and weights of a student at t and u and of a teacher at t."""

    x_0: Tensor
    x_t: Tensor
    x_u: Tensor
    features: Tensor
    target_features: Tensor
    teacher_features: Tensor
    student: AffineReadout
    teacher: AffineReadout
    parameterisation: Subs
    components: int
    draws: Draws

    def predictions(self) -> tuple[Prediction, Prediction, Prediction]:
        """(student at t, student at u, teacher at t)."""
        states, components = self.student.out_features, self.components
        return (
            Prediction(self.features, self.x_t, self.student, self.parameterisation, states, components),
            Prediction(self.target_features, self.x_u, self.student, self.parameterisation, states, components),
            Prediction(self.teacher_features, self.x_t, self.teacher, self.parameterisation, states),
        )

    def finish(self, loss: Tensor) -> dict:
        """The gradients, and numbers by which both implementations can be compared."""
        loss.mean().backward()
        report = {
            "loss": float(loss.detach().mean()),
            "feature_gradient": float(self.features.grad.norm()),
            "weight_gradient": float(self.student.weight.grad.norm()),
            "bias_gradient": float(self.student.bias.grad.norm()),
        }
        self.features.grad = self.student.weight.grad = self.student.bias.grad = None
        return report


def build(arguments: argparse.Namespace, name: str) -> Work:
    """The work of one measurement."""
    setting = _setting(arguments)
    if name == "plain":
        return lambda: _plain(setting)
    options = {} if arguments.chunk_megabytes is None else {"chunk_bytes": int(arguments.chunk_megabytes * 2**20)}
    return lambda: _project(setting, options)


def shapes(arguments: argparse.Namespace) -> dict:
    """The sizes by their symbols."""
    return {
        "B": arguments.batch, "M": arguments.components, "N": arguments.components, "D": arguments.positions,
        "S": arguments.states, "H": arguments.width, "masked": arguments.masked,
    }


def _setting(arguments: argparse.Namespace) -> Setting:
    torch.manual_seed(0)
    size, positions, width = arguments.batch, arguments.positions, arguments.width
    device, mask = torch.device(arguments.device), arguments.states - 1
    rows = size * arguments.components
    x_0 = torch.randint(mask, (size, positions), device=device)
    order = torch.rand(size, positions, device=device).argsort(-1)
    masked = int(arguments.masked * positions)
    x_t = torch.where(order < masked, mask, x_0)
    x_u = torch.where(order < masked - masked // 64, mask, x_0)
    features, target = (torch.randn(rows, positions, width, device=device) for _ in range(2))
    readouts = [AffineReadout(width, arguments.states).to(device) for _ in range(2)]
    return Setting(
        x_0, x_t, x_u, features.requires_grad_(), target, torch.randn(size, positions, width, device=device),
        readouts[0], readouts[1].requires_grad_(False), Subs(SimpleNamespace(mask_index=mask)), arguments.components,
        Draws(0, count=size, device=device),
    )


def _project(setting: Setting, options: dict) -> dict:
    student, target, teacher = setting.predictions()
    keep = 2 * options.get("chunk_bytes", 64 * 2**20)
    x, marginals = draw_with_marginals(target, setting.draws.child("x_0"), keep_bytes=keep, **options)
    estimator = ControlVariate()
    queries = [Query(estimator.needs, setting.x_0[:, None], teacher), Query(estimator.needs, x, marginals)]
    found = statistics(student, queries, **options)
    return setting.finish(sum(sum(estimator(each)) for each in found))


def _plain(setting: Setting) -> dict:
    mask, components = setting.parameterisation.mask_index, setting.components
    active = setting.x_t == mask
    log_weights = torch.full((components,), 1 / components, device=active.device).log()
    with torch.no_grad():
        logits = plain_logits(setting.target_features, setting.student.weight, setting.student.bias, components)
        p = plain_log_probs(logits, setting.x_u, mask).exp()
        del logits
        x = categorical(p, setting.draws.child("x_0").uniform(components, active.shape[1]))
        q = p.mean(1)
        del p
        teacher = plain_logits(setting.teacher_features, setting.teacher.weight, setting.teacher.bias, 1)
        teacher_q = plain_log_probs(teacher, setting.x_t, mask).exp()[:, 0]
    logits = plain_logits(setting.features, setting.student.weight, setting.student.bias, components)
    log_p = plain_log_probs(logits, setting.x_t, mask)
    data = plain_sums(log_p, active, log_weights, setting.x_0[:, None], teacher_q, {"joint", "marginal", "kl"})
    consistency = plain_sums(log_p, active, log_weights, x, q, {"joint", "marginal", "kl"})
    loss = plain_control_variate(data, log_weights) + plain_control_variate(consistency, log_weights)
    return setting.finish(loss)
