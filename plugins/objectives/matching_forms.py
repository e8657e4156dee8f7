"""What noise does to distribution matching: how x_s comes of x̂_0, and the exact expectation over position d.

A student's x̂_0 has the law p^θ_0 = E_{x_t, λ} ∏_d p^{θ,d}(· | x_t; λ), and p^θ_s, p^ψ_s are the student's and the teacher's laws with the
noise of time s on them. As Σ_v ∇p^{θ,d}(v) = 0,

    ∇ KL(p^θ_s ‖ p^ψ_s) = Σ_d E_{x_t, λ, x_s} Σ_v ∇p^{θ,d}(v | x_t; λ) · ρ^d(v),
    ρ^d(v) = Σ_y q_s(y | v) · log [ R(x_s^{−d}, y) / R(x_s) ],        R = p^θ_s / p^ψ_s,

whatever law x_s^d has given the other positions x_s^{−d}: position d's own sample and noise are summed over, not drawn. The ratio of R at two
states of one position is what denoisers know: with φ the critic, a denoiser of the student's samples, and ψ the teacher, in

    masked noise   log R(v)/R(mask) = log φ^d(v | x_s) − log ψ^d(v | x_s) where x_s^d is the mask, and R(mask)/R(mask) = 1, so
                   ρ^d(v) = (1 − m(s)) · (log φ^d − log ψ^d)(v | x_s), at masked positions alone, which have probability m(s);
    a chain        log R(y)/R(x_s^d) = log r^φ(y) − log r^ψ(y), r^φ(y) = Σ_u φ^d(u | x_s) q_s(y | u)/q_s(x_s^d | u): x_s^d carries x̂_0^d, which
                   the division takes out again, so ρ is summed over every y, at all positions.

Exact for a critic that knows its own law. A form gives c(s) and ρ up to the factor: the term is c(s)·Σ_d Σ_v p^{θ,d}(v) ρ^d(v), so that KL at
time s has the weight w(s) that the form states.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, Draws, ForwardProcess, Prediction
from di4c.errors import SpecError
from di4c.kernels.backend import chunk_budget
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.ctmc import ContinuousTimeChain
from di4c_plugins.processes.ctmc_bound import SMALLEST

AT_ONCE = 4
"""Tensors of a chunk's size that exist at once: probabilities, two logarithms, a gradient."""

Rewards = Callable[[Tensor], Tensor]
"""Rows b·D + d [P] → ρ^d(v) up to the form's factor: [P, S], without gradient."""


@dataclass(frozen=True)
class Renoised:
    """N = B·k examples, k times each, b major: the student's samples x_0 [N, D] with noise x_s [N, D] of times s [N] on them.

    span [N]: the times below which s is drawn. student: one component at x_t, N examples; critic, teacher: at x_s.
    """

    student: Prediction
    x_0: Tensor
    x_s: Tensor
    s: Tensor
    span: Tensor
    critic: Prediction | None = None
    teacher: Prediction | None = None


class MatchingForm(ABC):
    """One kind of noise. bridges: whether x_s may be drawn given x_t too."""

    bridges: bool

    def bridge(self, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        """x_s ~ q(x_s | x_t, x̂_0): [B, D]."""
        raise NotImplementedError(f"{type(self).__name__} draws x_s given x̂_0 alone")

    @abstractmethod
    def coefficient(self, s: Tensor, span: Tensor, most: float) -> Tensor:
        """c(s): [B]; s is drawn below `span` [B]."""

    @abstractmethod
    def pieces(self, student: Prediction, x_t: Tensor, x_s: Tensor, chunk_bytes: int) -> Iterator[Tensor]:
        """The rows b·D + d at which ρ counts, in chunks whose number depends on the shapes alone."""

    @abstractmethod
    def rewards(self, critic: Prediction, teacher: Prediction, x_s: Tensor, s: Tensor, clip: float | None) -> Rewards:
        """ρ at any rows of a chunk; log-ratios are cut to ±clip."""


class MaskedForm(MatchingForm):
    """Absorbing, mdlm, maskgit. c(s) = min(span·m′(s)/m(s), most), the weight of the bound, hence w(s) = c(s)·m(s)/(1 − m(s)).

    What x_t shows the student does not change: only positions masked in x_t and in x_s count. With `bridge` these are all that x_s hides:
    its law is that of the student's step from t to s. There a critic that does not see x_t mixes over what x_t had hidden, and the
    gradient is exact from t = 1 alone.
    """

    bridges = True

    def __init__(self, process: Absorbing):
        self.process = process

    def bridge(self, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        stays = self.process.schedule.masked(s) / self.process.schedule.masked(t).clamp_min(1e-12)
        hidden = (x_t == self.process.mask_index) & (draws.uniform(x_0.shape[1]) < stays[:, None])
        return torch.where(hidden, self.process.mask_index, x_0)

    def coefficient(self, s: Tensor, span: Tensor, most: float) -> Tensor:
        schedule = self.process.schedule
        rate = torch.where(schedule.masked(s) > 0, schedule.log_rate(s), 0.0)  # 0/0 where nothing is masked
        return (span * rate).clamp_max(most)

    def pieces(self, student: Prediction, x_t: Tensor, x_s: Tensor, chunk_bytes: int) -> Iterator[Tensor]:
        mask = self.process.mask_index
        return student.chunks(chunk_bytes, where=(x_t == mask) & (x_s == mask))

    def rewards(self, critic: Prediction, teacher: Prediction, x_s: Tensor, s: Tensor, clip: float | None) -> Rewards:
        critic, teacher = (prediction.without(self.process.mask_index) for prediction in (critic, teacher))

        @torch.no_grad()
        def read(rows: Tensor) -> Tensor:
            phi, psi = critic.log_probs(rows)[:, 0], teacher.log_probs(rows)[:, 0]
            # states that all forbid: their logarithms differ by rounding alone
            return torch.where(phi > LOG_ZERO / 2, cut(phi - psi.to(phi), clip), 0.0)

        return read


class ChainForm(MatchingForm):
    """Uniform, discretised Gaussian, birth-death: c(s) = 1, hence w(s) = 1. Read by blocks of positions, as the chain's bound."""

    bridges = False

    def __init__(self, process: ContinuousTimeChain):
        self.process = process

    def coefficient(self, s: Tensor, span: Tensor, most: float) -> Tensor:
        return torch.ones_like(s)

    def pieces(self, student: Prediction, x_t: Tensor, x_s: Tensor, chunk_bytes: int) -> Iterator[Tensor]:
        size, positions = x_s.shape
        number = torch.arange(x_s.numel(), device=x_s.device).view_as(x_s)
        return (number[:, block].flatten() for block in self.process.blocks(AT_ONCE * size, positions))

    def rewards(self, critic: Prediction, teacher: Prediction, x_s: Tensor, s: Tensor, clip: float | None) -> Rewards:
        size, positions = x_s.shape
        q = self.process.tables(s)

        @torch.no_grad()
        def read(rows: Tensor) -> Tensor:
            block = rows.view(size, -1)[0] % positions
            x = x_s[:, block]

            def log_ratios(prediction: Prediction) -> Tensor:
                p_0 = prediction.log_probs(rows)[:, 0].exp().view(*x.shape, -1)
                return self.process.ratios(q, x, p_0).clamp_min(SMALLEST).log()

            return q.expected(cut(log_ratios(critic) - log_ratios(teacher), clip)).flatten(0, 1)

        return read


def form_of(process: ForwardProcess) -> MatchingForm:
    """The form of a process. SpecError if there is none."""
    if isinstance(process, Absorbing):
        return MaskedForm(process)
    if isinstance(process, ContinuousTimeChain):
        return ChainForm(process)
    raise SpecError(
        f"objective distribution-matching has no form for the process {type(process).__name__}; it has one for masked processes "
        "(absorbing, mdlm, maskgit) and for chains with transition matrices (uniform, discretised-gaussian, birth-death)"
    )


def matching_loss(
    form: MatchingForm, seen: Renoised, *, most: float, clip: float | None, chunk_bytes: int | None = None
) -> Tensor:
    """c(s)·Σ_d Σ_v p^{θ,d}(v | x_t; λ) ρ^d(v): [N] nats; its gradient is the student's alone."""
    student, budget = seen.student, chunk_bytes or chunk_budget(seen.x_s.device)
    rewards = form.rewards(seen.critic, seen.teacher, seen.x_s, seen.s, clip)
    pieces = form.pieces(student, student.x_t, seen.x_s, budget // AT_ONCE)
    kept = seen.x_s.numel() * student.num_states * student.accumulation_dtype.itemsize <= budget
    value = summed(student, rewards, pieces, kept=kept)
    return form.coefficient(seen.s, seen.span, most).to(value) * value


def summed(student: Prediction, rewards: Rewards, pieces: Iterator[Tensor], *, kept: bool) -> Tensor:
    """Σ_d Σ_v p^{θ,d}(v | x_t; λ) ρ^d(v) over the rows of the pieces: [N], float32 at least.

    kept: whether the ρ of all rows may be held until the backward pass; else each chunk's are read again there.
    """

    def read(h: Tensor, rows: Tensor, rho: Tensor | None) -> Tensor:
        rho = rewards(rows) if rho is None else rho
        log_p = student.log_probs_from(h, rows)[:, 0]
        return (log_p.exp() * rho.to(log_p)).sum(-1)

    read_out = ((rows, rewards(rows) if kept else None) for rows in pieces)
    return student.summed(read, read_out, len(student.x_t))


def cut(values: Tensor, clip: float | None) -> Tensor:
    return values if clip is None else values.clamp(-clip, clip)
