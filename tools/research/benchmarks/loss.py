"""The data and consistency terms with the control variate on given features: values and all gradients."""

import argparse
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.measure import Work
from benchmarks.systems import DTYPES
from benchmarks.terms import plain_terms, project_terms
from di4c.contracts import AffineOutputHead, Draws, Prediction
from di4c_plugins.parameterisations.subs import Subs

NAMES = ["project", "plain"]
SHAPES = "B M N D S H masked dtype"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes: M = N components, D, S, H, and how many positions are masked."""
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--positions", type=int, default=256)
    parser.add_argument("--states", type=int, default=50258)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--masked", type=float, default=0.5, help="share of the positions that are masked at t")


def settle(arguments: argparse.Namespace) -> None:
    """As many targets as components."""
    arguments.targets = arguments.components


def build(arguments: argparse.Namespace, name: str) -> Work:
    predictions, x_0 = _predictions(arguments)
    draws = Draws(0, count=arguments.batch, device=arguments.device)
    terms = project_terms if name == "project" else plain_terms

    def work() -> dict:
        loss = terms(*predictions, x_0, draws.child("x_0")).mean()
        loss.backward()
        return _report(loss.detach(), predictions[0])

    return work


def _predictions(arguments: argparse.Namespace) -> tuple[tuple[Prediction, Prediction, Prediction], Tensor]:
    """Student at t, student at u, teacher at t from random features and weights; and x_0."""
    torch.manual_seed(0)
    dtype = DTYPES[arguments.dtype]
    size, positions, width, states = arguments.batch, arguments.positions, arguments.width, arguments.states
    device, mask, rows = torch.device(arguments.device), states - 1, size * arguments.components
    x_0 = torch.randint(mask, (size, positions), device=device)
    order = torch.rand(size, positions, device=device).argsort(-1)
    masked = int(arguments.masked * positions)
    x_t, x_u = (torch.where(order < number, mask, x_0) for number in (masked, masked - masked // 64))
    features, target = (torch.randn(rows, positions, width, device=device).to(dtype) for _ in range(2))
    readout, teachers = (AffineOutputHead(width, states).to(device, dtype) for _ in range(2))
    subs = Subs(SimpleNamespace(mask_index=mask))
    taught = torch.randn(size, positions, width, device=device).to(dtype)
    teacher = Prediction(taught, x_t, teachers.requires_grad_(False), subs, states)
    student = Prediction(features.requires_grad_(), x_t, readout, subs, states, arguments.components)
    return (student, Prediction(target, x_u, readout, subs, states, arguments.components), teacher), x_0


def _report(loss: Tensor, student: Prediction) -> dict:
    """Numbers by which the implementations can be compared; clears the gradients."""
    leaves = {"feature": student.features, "weight": student.output_head.weight, "bias": student.output_head.bias}
    report = {"loss": float(loss)} | {f"{name}_gradient": float(leaf.grad.norm()) for name, leaf in leaves.items()}
    for leaf in leaves.values():
        leaf.grad = None
    return report
