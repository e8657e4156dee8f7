"""Generation: from x_1 to x_0 in n steps."""

import itertools
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from di4c.contracts.prediction import Denoiser
from di4c.contracts.process import ForwardProcess
from di4c.draws import Draws


class Sampler(ABC):
    """One reverse step, and the loop over steps. Constructed with `process` by keyword, and `teacher` if it asks for it.

    teacher: a second model, to guide or to finish with: the one of `eval.sampler.teacher`, else the run's own; None where neither
    is at hand. It may be loaded no earlier than it is first asked, and is then whatever that teacher is, its calls counted.
    Under a process with a mask `sample` takes an x_1 of which some positions are visible (a prompt), leaves those as they are, and
    leaves no mask. The annotation of the constructor's `process` says which processes it works with: `check` refuses the others.
    keeps_predictions: whether `sample` may use a prediction again at a later time, which is exact only for networks that ignore t.
    evaluations: the most calls of the denoiser that a step makes. Where the losses step, calls are made up to that number:
    ranks that share a teacher's weights call it equally often, whatever times they draw.
    """

    process: ForwardProcess
    evaluations: int = 1
    keeps_predictions: bool = False

    @abstractmethod
    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_s given x_t: [B, D]; t, s [B] (s = 0: the last step). The same step makes x_u in the consistency loss."""

    def times(self, steps: int) -> list[float]:
        """The grid 1 = t_n > … > t_0 = 0: n + 1 values."""
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, x_1: Tensor, steps: int, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_0: [B, D], by `steps` calls of `step` from x_1 [B, D]."""
        times = self.times(steps)
        x = x_1
        for n, (t, s) in enumerate(itertools.pairwise(times)):
            now, then = (torch.full((len(x),), v, dtype=torch.float64, device=x.device) for v in (t, s))
            x = self.step(denoiser, x, now, then, cond, draws.child("step", n))
        return x
