"""AdamW with learning-rate multipliers as parameter groups."""

import torch
from torch import nn

from di4c.engine.options import OptimizerOptions
from di4c.errors import SpecError


def parameter_groups(module: nn.Module, options: OptimizerOptions) -> list[dict]:
    """The trainable parameters by learning-rate multiplier: [{"params", "lr_multiplier"}], in the order of definition.

    Where several multipliers' names occur in a parameter's name their factors multiply. Raises SpecError for a
    multiplier that matches no parameter.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    unmatched = set(options.lr_multipliers)
    names = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        names.append(name)
        factor = 1.0
        for part, multiplier in options.lr_multipliers.items():
            if part in name:
                factor *= multiplier
                unmatched.discard(part)
        groups.setdefault(factor, []).append(parameter)
    if unmatched:
        raise SpecError(
            f"train.optimizer.lr_multipliers: no trainable parameter's name contains {sorted(unmatched)[0]!r}; "
            f"the names begin {', '.join(names[:8])}"
        )
    return [{"params": params, "lr_multiplier": factor} for factor, params in groups.items()]


def build_optimizer(groups: list[dict], options: OptimizerOptions) -> torch.optim.Optimizer:
    """AdamW whose rate is 0 until `set_learning_rate`: some DeepSpeed wrappers take an empty step at the start."""
    return torch.optim.AdamW(
        groups, lr=0.0, betas=tuple(options.betas), weight_decay=options.weight_decay, eps=options.eps, fused=True
    )


def set_learning_rate(optimizer, lr: float) -> None:
    """Gives every group `lr` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)
