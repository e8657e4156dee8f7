"""Absorbing (masked) diffusion."""

from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, Draws, ForwardProcess, Prediction
from di4c.errors import SpecError
from di4c_plugins.processes.schedules import SCHEDULES


class Absorbing(ForwardProcess):
    """Each position jumps to the mask state, independently, by time t with probability m(t).

    q(x_t^d = mask | x_0^d) = m(t), else x_t^d = x_0^d. The mask is the last state unless `mask_index` says otherwise.
    """

    def __init__(
        self, data_states: int, *, schedule: Literal["log-linear"] = "log-linear", mask_index: int | None = None
    ):
        if schedule not in SCHEDULES:
            raise SpecError(
                f"process.schedule: no mask schedule named {schedule!r}; known: {', '.join(sorted(SCHEDULES))}"
            )
        if mask_index is not None and mask_index < 0:
            raise SpecError(f"process.mask_index: expected a state ≥ 0, found {mask_index}")
        self.schedule = SCHEDULES[schedule]()
        self.num_states = data_states + 1 if mask_index is None else max(data_states, mask_index + 1)
        self.mask_index = data_states if mask_index is None else mask_index

    def prior(self, num_positions: int, draws: Draws) -> Tensor:
        return torch.full((draws.count, num_positions), self.mask_index, device=draws.device)

    def corrupt(self, x_0: Tensor, t: Tensor, draws: Draws) -> Tensor:
        masked = draws.uniform(x_0.shape[1]) < self.schedule.masked(t)[:, None]
        return torch.where(masked, self.mask_index, x_0)

    def posterior(self, x_t: Tensor, prediction: Prediction, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        """Each masked position is revealed with probability 1 − m(s)/m(t), as a data state; only these are read out.

        A network that gives the mask state some probability (`raw`) is taken at its word for the data states alone, in proportion.
        """
        choice, uniform = draws.uniform(2, x_t.shape[1]).unbind(1)
        revealed = (x_t == self.mask_index) & (choice >= self._stays_masked(t, s)[:, None])
        return prediction.without(self.mask_index).draw(uniform, where=revealed)

    def posterior_log_prob(self, x_s: Tensor, x_t: Tensor, prediction: Prediction, t: Tensor, s: Tensor) -> Tensor:
        was_masked = x_t == self.mask_index
        revealed = was_masked & (x_s != self.mask_index)
        stays = self._stays_masked(t, s)
        log_stay = torch.where(stays > 0, stays.clamp_min(1e-300).log(), LOG_ZERO)
        log_go = torch.where(stays < 1, (1 - stays).clamp_min(1e-300).log(), LOG_ZERO)
        changed = ~was_masked & (x_s != x_t)  # impossible: what is visible stays
        pattern = revealed.sum(1) * log_go + (was_masked & ~revealed).sum(1) * log_stay + changed.sum(1) * LOG_ZERO
        log_p = prediction.without(self.mask_index).log_prob_of(x_s, revealed)
        return log_p + pattern[:, None].to(log_p)

    def transition(self, t: Tensor) -> Tensor:
        """q(x_t^d | x_0^d), [from, to]: [B, S, S] float64; the mask stays the mask."""
        masked = self.schedule.masked(t.double())[:, None, None]
        state = torch.arange(self.num_states, device=t.device)
        to_mask = (state == self.mask_index).double().expand(self.num_states, -1)
        return masked * to_mask + (1 - masked) * torch.eye(self.num_states, dtype=torch.float64, device=t.device)

    def nelbo(self, x_0: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        """m′(t)/m(t) · Σ_{d masked} −log p^d(x_0^d | x_t): [B] nats (Sahoo et al. 2024, eq. 10). 0 where nothing is masked, t = 0 too."""
        masked = x_t == self.mask_index
        log_p = prediction.log_prob_of(x_0, masked)[:, 0]
        return -torch.where(masked.any(1), self.schedule.log_rate(t), 0.0).to(log_p) * log_p

    def _stays_masked(self, t: Tensor, s: Tensor) -> Tensor:
        """q(x_s = mask | x_t = mask, x_0 ≠ mask) = m(s)/m(t): [B]."""
        return self.schedule.masked(s) / self.schedule.masked(t).clamp_min(1e-12)
