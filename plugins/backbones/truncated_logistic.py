"""A logistic distribution on (−1, 1), cut into S bins: an output head with two numbers a position."""

import torch
from torch import Tensor, nn

LOG_FLOOR = 1e-6
"""Stands in log1p(−exp(l − r) + 1e-6) of the published code; keeps a bin without mass finite."""


class TruncatedLogistic(nn.Module):
    """(μ, log-scale) [P, M, 2] → unnormalised log-masses of S bins [P, M, S] (Austin et al. 2021, appendix A.8).

    log( F(r_s) − F(l_s) ), F the logistic distribution function with mean μ and scale exp(log-scale − 2), bins of width
    2/S on (−1, 1); what falls outside is left out. `symmetric` takes the smaller of that and of its form for 1 − F,
    which is the more accurate one right of μ (tauLDR's fix_logistic).
    """

    def __init__(self, num_states: int, *, symmetric: bool = False):
        super().__init__()
        self.num_states = num_states
        self.symmetric = symmetric

    def forward(self, h: Tensor, positions: Tensor, x_t: Tensor) -> Tensor:
        wide = h if h.dtype == torch.float64 else h.float()
        mean, log_scale = wide[..., :1], wide[..., 1:]
        edges = torch.linspace(-1.0, 1.0, self.num_states + 1, dtype=torch.float64, device=h.device).to(wide)
        scaled = (edges - mean) * torch.exp(2.0 - log_scale)
        log_below = nn.functional.logsigmoid(scaled)
        logits = _log_difference(log_below[..., 1:], log_below[..., :-1])
        if not self.symmetric:
            return logits
        log_above = log_below - scaled
        return torch.minimum(logits, _log_difference(log_above[..., :-1], log_above[..., 1:]))


def _log_difference(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(e^larger − e^smaller), floored."""
    return larger + torch.log1p(LOG_FLOOR - torch.exp(smaller - larger))
