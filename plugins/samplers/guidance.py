"""Classifier-free guidance of confidence- and order-based samplers."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from di4c.contracts import Denoiser, LentTeacher, Sampler, Teacher, Tempering
from di4c.errors import SpecError
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.masked import need_mask

SHARP = 1e3
"""Above this scale differences of log-probabilities are scaled, in float64: nothing overflows, and in the limit it is greedy."""

LARGEST = 1e6
"""A guidance weight beyond which float32 keeps nothing of the log-probabilities."""


@dataclass(frozen=True)
class Guidance:
    """log p ∝ scale·[ (1 + w)·log p(x_0|x_t, c) − w·log p(x_0|x_t) ], the mask state left out, temperature and top-p last.

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
        if not 0 < self.scale < math.inf:
            raise SpecError(f"sampler: logit_scale is {self.scale}; it must be positive and finite")

    def log_probs(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        """Guided log p(x_0 | x_t, c) over the data states: [B, D, S]; weight w [B], or None for no guidance at all."""
        if weight is None:
            prediction = denoiser(x_t, t, cond)
            log_p, tempering = prediction.tempered(None).log_p0(), prediction.tempering
        else:
            log_p, tempering = self._combined(denoiser, x_t, t, cond, weight)
        log_p = log_p.index_fill(-1, torch.tensor([self.mask_index], device=log_p.device), -torch.inf)
        if self.scale > SHARP:
            log_p = log_p.double() - log_p.double().amax(-1, keepdim=True)
        log_p = (log_p * self.scale).log_softmax(-1)
        return log_p if tempering is None else tempering(log_p)

    def _combined(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Tensor | None, weight: Tensor
    ) -> tuple[Tensor, Tempering | None]:
        """The combination [B, D, S] of predictions as the models make them, and how it is to be tempered."""
        if cond is None:
            raise SpecError("sampler: guidance needs class labels, which these data lack; set guidance: 0")
        unlabelled = torch.full_like(cond, -1)
        if self.guide == "teacher":
            prediction = denoiser(x_t, t, cond)
            with_label = prediction.tempered(None).log_p0()
            without = self.teacher.predict(x_t, t, unlabelled).tempered(None).log_p0()
        else:
            prediction = denoiser(x_t.repeat(2, 1), t.repeat(2), torch.cat([cond, unlabelled]))
            with_label, without = prediction.tempered(None).log_p0().chunk(2)
        w = weight.to(with_label)[:, None, None]
        return (1 + w) * with_label - w * without, prediction.tempering


class GuidedSampler(Sampler):
    """Base of samplers that draw from guided predictions; it holds a teacher only if that one guides."""

    called: str  # in messages
    process: Absorbing

    def __init__(
        self,
        process: Absorbing,
        *,
        teacher: Teacher | None = None,
        guidance: float = 0.0,
        guide: Literal["self", "teacher"] = "self",
        logit_scale: float = 1.0,
    ):
        need_mask(process, self.called)
        if not abs(guidance) <= LARGEST:
            raise SpecError(f"sampler: guidance is {guidance}; it lies between -{LARGEST:g} and {LARGEST:g}")
        asked = guide if guidance else "self"
        lent = LentTeacher.of(teacher) if asked == "teacher" and teacher is not None else None
        self.process, self.weight = process, guidance
        self.guidance = Guidance(process.mask_index, asked, logit_scale, lent)

    def guided(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Tensor | None, share: Tensor) -> Tensor:
        """log p(x_0 | x_t, c) [B, D, S] with the `share` [B] of the guidance's weight."""
        return self.guidance.log_probs(denoiser, x_t, t, cond, self.weight * share if self.weight else None)
