"""SUBS, MDLM's parameterisation of masked diffusion."""

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, ForwardProcess, Parameterisation


class Subs(Parameterisation):
    """The mask state is forbidden and visible positions are carried over (Sahoo et al. 2024, section 3.2.3)."""

    def __init__(self, process: ForwardProcess):
        self.mask_index = process.mask_index

    def log_probs(self, logits: Tensor, x_t: Tensor) -> Tensor:
        forbidden = torch.zeros(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        forbidden[self.mask_index] = LOG_ZERO
        log_p = (logits + forbidden).log_softmax(-1)
        carried = torch.full_like(log_p, LOG_ZERO).scatter(-1, x_t[:, None, None].expand(*log_p.shape[:-1], 1), 0.0)
        return torch.where((x_t == self.mask_index)[:, None, None], log_p, carried)

    def active(self, x_t: Tensor) -> Tensor:
        return x_t == self.mask_index
