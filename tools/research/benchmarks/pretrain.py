"""A training step of a masked-diffusion teacher (MDLM's network, its bound on −log p): tokens a second, and the share of the peak."""

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import systems
from benchmarks.measure import Work
from benchmarks.peaks import peak_tflops
from benchmarks.step import with_state
from di4c.contracts import Batch, Draws
from di4c.engine.compiling import compile_backbones
from di4c.losses.pretraining import NELBO
from di4c_plugins.times.samplers import LowDiscrepancyTime

NAMES = ["project"]
SHAPES = "B D S H blocks dtype compile"
DTYPE = "bf16"
SIZES: systems.Sizes = {"text": systems.TEXT}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes: 32 sequences of 1024 tokens a step, if not told otherwise."""
    systems.add_arguments(parser, SIZES)
    parser.set_defaults(system="text")
    parser.add_argument("--batch", type=int, default=32)


def settle(arguments: argparse.Namespace) -> None:
    systems.settle(arguments, SIZES)
    arguments.compile = arguments.device == "cuda"


def build(arguments: argparse.Namespace, name: str) -> Work:
    """The work of one measurement: draws, loss, gradients, AdamW."""
    dtype = systems.DTYPES[arguments.dtype]
    teacher = systems.make_teacher(arguments, systems.make_process(arguments))
    objective = NELBO(teacher, time=LowDiscrepancyTime(low=1e-3)).to(dtype).train()
    if arguments.compile:
        compile_backbones(objective)
    optimizer = with_state(torch.optim.AdamW(objective.parameters(), lr=1e-5, fused=True))
    batch = Batch(torch.randint(arguments.states - 1, (arguments.batch, arguments.positions), device=arguments.device))
    draws = Draws(0, count=arguments.batch, device=arguments.device)
    flops = step_flops(arguments, masked_positions(objective, batch, draws))

    def work() -> dict:
        loss = objective(batch, draws, 0)["loss"].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": float(loss.detach()), "model_tflop": flops / 1e12}

    return work


def rates(arguments: argparse.Namespace, found: dict, device: str) -> dict:
    """Tokens a second, the model's TFLOP/s, and their share of the device's peak (None where that is not known)."""
    tflops = found["report"]["model_tflop"] / found["seconds"]
    peak = peak_tflops(device, arguments.dtype)
    return {
        "tokens_per_second": round(arguments.batch * arguments.positions / found["seconds"], 1),
        "model_tflops": round(tflops, 3),
        "share_of_peak": None if peak is None else round(tflops / peak, 4),
    }


def masked_positions(objective: NELBO, batch: Batch, draws: Draws) -> int:
    """How many positions a step with these draws reads out: the loss looks at no others."""
    t, _ = objective.time.sample(draws.child("t"))
    x_t = objective.process.corrupt(batch.x_0, t, draws.child("x_t"))
    return int((x_t == objective.process.mask_index).sum())


def step_flops(arguments: argparse.Namespace, masked: int) -> int:
    """3 × the forward pass's products and attention, 2 FLOPs a multiplication and addition.

    The trunk is counted for every position, the output head for the masked ones alone; what a backward pass computes again is not counted.
    """
    traced = systems.make_teacher(
        argparse.Namespace(**vars(arguments) | {"device": "meta"}), systems.make_process(arguments)
    ).backbone
    x_t = torch.zeros(1, arguments.positions, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        traced(x_t, torch.zeros(1, device="meta"))
    head = 2 * arguments.width * arguments.states * masked
    return 3 * (arguments.batch * counted.get_total_flops() + head)
