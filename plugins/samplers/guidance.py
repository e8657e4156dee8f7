"""Classifier-free guidance of confidence- and order-based samplers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, Denoiser, Teacher
from di4c.errors import SpecError


@dataclass(frozen=True)
class Guidance:
    """log p ∝ scale·[ (1 + w)·log p(x_0|x_t, c) − w·log p(x_0|x_t) ], the mask state left out.

    guide: where p(x_0|x_t) comes from, "self" (the sampled model; both passes share their λ) or "teacher".
    scale multiplies the logits before the softmax (the reference's `sm_temp`, an inverse temperature).
    """

    mask_index: int
    guide: Literal["self", "teacher"] = "self"
    scale: float = 1.0
    teacher: Teacher | None = None

    def __post_init__(self):
        if self.guide == "teacher" and self.teacher is None:
            raise SpecError("sampler: guide 'teacher' needs a teacher; with none, use guide: self or guidance: 0")
        if self.scale <= 0:
            raise SpecError(f"sampler: logit_scale is {self.scale}; it must be positive")

    def log_probs(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        """Guided log p(x_0 | x_t, c) over the data states: [B, D, S]; weight w [B], or None for no guidance at all."""
        log_p = denoiser(x_t, t, cond).log_p0() if weight is None else self._combined(denoiser, x_t, t, cond, weight)
        index = torch.tensor([self.mask_index], device=log_p.device)
        # Scaled before the mask is ruled out, so that its LOG_ZERO stays finite and far below.
        return (log_p * self.scale).index_fill(-1, index, LOG_ZERO).log_softmax(-1)

    def _combined(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Tensor | None, weight: Tensor) -> Tensor:
        if cond is None:
            raise SpecError("sampler: guidance needs class labels, which these data lack; set guidance: 0")
        unlabelled = torch.full_like(cond, -1)
        if self.guide == "teacher":
            with_label = denoiser(x_t, t, cond).log_p0()
            without = self.teacher.predict(x_t, t, unlabelled).log_p0()
        else:
            both = denoiser(x_t.repeat(2, 1), t.repeat(2), torch.cat([cond, unlabelled]))
            with_label, without = both.log_p0().chunk(2)
        w = weight.to(with_label)[:, None, None]
        return (1 + w) * with_label - w * without
