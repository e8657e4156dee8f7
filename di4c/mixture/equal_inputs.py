"""Equal inputs of a batch: every distinct (x_t, t, label) is to be evaluated once."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from di4c.contracts import Denoiser, Prediction
from di4c.contracts.sharing import Sharing
from di4c.mixture.student import MixtureStudent
from di4c.ranks import combined


def equal_inputs(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Sharing | None:
    """Which examples have equal x_t [B, D], t [B] and labels [B]; None if on some rank all differ.

    The ranks agree on it, so all of them must call. A GPU has to be waited for.
    """
    columns = [x_t, t.double().view(torch.int64)[:, None], *([] if cond is None else [cond[:, None]])]
    _, of, counts = torch.cat(columns, 1).unique(dim=0, return_inverse=True, return_counts=True)
    most = _largest_of_ranks(len(counts), x_t.device)
    return Sharing(of, tuple(counts.tolist()), most) if most < len(x_t) else None


def draws_masks(module: nn.Module) -> bool:
    """Whether some dropout is active: its masks belong to examples, which equal inputs do not make equal."""
    dropouts = (m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd))
    return any(dropout.training and dropout.p > 0 for dropout in dropouts)


def once(predict: Denoiser, sharing: Sharing | None, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Prediction:
    """predict(x_t, t, cond), asked once for equal inputs."""
    if sharing is None:
        return predict(x_t, t, cond)
    first = sharing.first
    found = predict(x_t[first], t[first], None if cond is None else cond[first])
    return replace(found, sharing=sharing)


def components_once(
    student: MixtureStudent,
    sharing: Sharing | None,
    x_t: Tensor,
    t: Tensor,
    cond: Tensor | None,
    lam: Tensor,
    **options: Any,
) -> Prediction:
    """student.predict(x_t, t, cond, lam, **options), asked once for equal inputs: there λ is the same for all examples."""
    predict = lambda x_t, t, cond: student.predict(x_t, t, cond, lam[: len(x_t)], **options)
    return once(predict, sharing, x_t, t, cond)


def _largest_of_ranks(number: int, device: torch.device) -> int:
    """The largest of all ranks' numbers."""
    (largest,) = combined(torch.tensor([number], device=device), op=torch.distributed.ReduceOp.MAX)
    return int(largest)
