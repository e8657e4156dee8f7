"""AdamW with parameter groups: learning-rate multipliers, betas of their own, and what is trained beside the model."""

from collections.abc import Iterable, Mapping

import torch

from di4c.contracts.objective import Objective
from di4c.engine.options import OptimizerOptions
from di4c.errors import SpecError

STILL = 1 - 1e-12
"""A beta that leaves float32 moments bit for bit as they are under a zero gradient; 1 would divide by zero."""
STILL_ON_CUDA = 1 - 2**-24
"""The same where torch's fused kernel takes betas as float32, in which STILL is 1: the largest below. Moments lose 6e-8 of themselves."""


def parameter_groups(objective: Objective, options: OptimizerOptions) -> list[dict]:
    """The trainable parameters [{"params", "lr_multiplier", "betas", "apart"}], in the order of definition.

    Parameters of a group have the same multiplier and betas, and are all the model's or all beside it. Where several multipliers'
    names occur in a parameter's name their factors multiply; of betas the last counts. Raises SpecError for a name that matches no
    parameter.
    """
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    for key in ("lr_multipliers", "betas_of"):
        _check_named(getattr(options, key), trained, key)
    groups: dict[tuple, list] = {}
    for name, parameter in trained.items():
        factor, betas = 1.0, tuple(options.betas)
        for part, multiplier in options.lr_multipliers.items():
            factor *= multiplier if part in name else 1.0
        for part, own in options.betas_of.items():
            betas = tuple(own) if part in name else betas
        groups.setdefault((factor, betas, objective.apart(name)), []).append(parameter)
    return [
        {"params": params, "lr_multiplier": factor, "betas": betas, "own_betas": betas, "apart": apart}
        for (factor, betas, apart), params in groups.items()
    ]


def build_optimizer(groups: list[dict], options: OptimizerOptions) -> torch.optim.Optimizer:
    """AdamW whose rate is 0 until `set_learning_rate`: some DeepSpeed wrappers take an empty step at the start."""
    return torch.optim.AdamW(
        groups, lr=0.0, betas=tuple(options.betas), weight_decay=options.weight_decay, eps=options.eps, fused=True
    )


def set_learning_rate(optimizer, lr: float, *, resting: bool = False, on_cuda: bool = False) -> None:
    """Gives every group `lr` times its multiplier; resting: those of the model are held still, weights and moments.

    on_cuda: whether the network is there; of a group DeepSpeed may say nothing between steps.
    """
    beta = STILL_ON_CUDA if on_cuda else STILL
    for group in optimizer.param_groups:
        still = resting and not group["apart"]
        group["lr"] = 0.0 if still else lr * group["lr_multiplier"]
        group["betas"] = (beta, beta) if still else group["own_betas"]


def _check_named(parts: Mapping[str, object], names: Iterable[str], key: str) -> None:
    for part in sorted(parts):
        if not any(part in name for name in names):
            raise SpecError(
                f"train.optimizer.{key}: no trainable parameter's name contains {part!r}; "
                f"the names begin {', '.join(list(names)[:8])}"
            )
