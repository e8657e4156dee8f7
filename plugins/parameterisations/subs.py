"""SUBS, MDLM's parameterisation of masked diffusion."""

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, ForwardProcess, Parameterisation
from di4c.errors import SpecError


class Subs(Parameterisation):
    """The mask state is forbidden and visible positions are carried over (Sahoo et al. 2024, section 3.2.3)."""

    def __init__(self, process: ForwardProcess):
        if process.mask_index is None:
            raise SpecError(
                f"subs forbids the mask state, and {type(process).__name__} has none; take parameterisation: raw"
            )
        self.mask_index = process.mask_index
        self.excluded = (self.mask_index,)

    def log_probs(self, logits: Tensor, x_t: Tensor) -> Tensor:
        states = torch.arange(logits.shape[-1], device=logits.device)
        zero = logits.new_zeros(())
        log_p = (logits + torch.where(states == self.mask_index, LOG_ZERO, zero)).log_softmax(-1)
        carried = torch.where(states == x_t[:, None, None], zero, LOG_ZERO)  # [P, 1, S]: alike for all components
        return torch.where((x_t == self.mask_index)[:, None, None], log_p, carried)

    def active(self, x_t: Tensor) -> Tensor:
        return x_t == self.mask_index
