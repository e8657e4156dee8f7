"""Self-distillation through time: a student learns to reveal in one step what its teacher reveals in k."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from di4c.contracts import LOG_ZERO, Batch, Draws, LambdaSampler, Objective, Prediction, ProbeBatch, Teacher
from di4c.errors import SpecError

Predict = Callable[[Tensor, Tensor, Tensor | None], Prediction]
Distance = Literal["kl-fwd", "kl-bwd", "mse", "tv", "mse-log", "tv-log"]


class Sdtt(Objective):
    """Deschenaux & Gulcehre 2024 (SDTT), round after round in one run; the student is a product model.

    One round, with step size δ: t ~ U[ε, 1], x_t ~ q(·|x_0). The teacher takes `substeps` ancestral steps of size δ
    from x_t; at every position masked in x_t its target is the teacher's prediction at the step that revealed it, or at
    the last step if none did. The student's prediction at x_t is drawn towards the target by `distance`, summed over
    these positions.

    distance    kl-fwd KL(teacher ‖ student), kl-bwd KL(student ‖ teacher), mse Σ_s (p − q)², tv ½ Σ_s |p − q|;
                mse-log and tv-log are what the published code calls MSE and TV: the mean over states of squared, and
                the sum of absolute, differences of log-probabilities.
    per         "sequence": summed over positions (nats, as all losses here); "masked-token": divided by the number of
                masked positions, which the published code does over the whole batch.
    substep_times  "steps": the teacher looks at t − i·δ before step i. "published": at the published code's times,
                t·c + (1 − t)·(t − kδ) with c from 1 to 0 (where (1 − c) was probably meant).

    Round r = ⌊step / steps_per_round⌋, at most rounds − 1, has δ = substeps^r·(1 − ε)/base_steps. When a round begins,
    the student's weights (the raw ones, as published by default) become the teacher. That copy is part of the
    objective's state, so a resumed run goes on with the right teacher. The published rounds: 7 of 10 000 steps,
    base_steps 1024, substeps 2, kl-bwd. ε is `earliest`.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: nn.Module,
        latent: LambdaSampler,
        *,
        distance: Distance,
        base_steps: int,
        rounds: int,
        steps_per_round: int,
        substeps: int = 2,
        per: Literal["sequence", "masked-token"] = "sequence",
        substep_times: Literal["steps", "published"] = "steps",
        earliest: float = 1e-5,
    ):
        super().__init__()
        if teacher.process.mask_index is None:
            raise SpecError("objective sdtt: the process has no mask state; use it with absorbing or mdlm")
        if latent.num_atoms != 1:
            raise SpecError(
                "objective sdtt trains a product student: use latent {name: categorical, atoms: 1}, student.head none"
            )
        if min(base_steps, rounds, steps_per_round) < 1 or substeps < 2 or base_steps < substeps**rounds:
            raise SpecError(
                f"objective: base_steps {base_steps}, rounds {rounds}, steps_per_round {steps_per_round}, substeps "
                f"{substeps}; needed: substeps ≥ 2, the others ≥ 1, substeps^rounds ≤ base_steps (one step is left)"
            )
        self.model = student
        self._frozen = (teacher, latent)  # in a tuple, so that neither becomes a submodule
        self.distance, self.per, self.substep_times = DISTANCES[distance], per, substep_times
        self.base_steps, self.substeps = base_steps, substeps
        self.rounds, self.steps_per_round = rounds, steps_per_round
        self.earliest = earliest
        self.round_teacher = copy.deepcopy(student).eval().requires_grad_(False)
        self.register_buffer("teacher_round", torch.zeros(1, dtype=torch.int64))
        self._teacher_round: int | None = None

    @property
    def teacher(self) -> Teacher:
        return self._frozen[0]

    def train(self, mode: bool = True) -> "Sdtt":
        super().train(mode)
        self.round_teacher.eval()
        return self

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B], and its mean a masked position "distance_per_token": [B]}."""
        number = self._round(step)
        self._begin_round(number)  # done already, where an engine trains
        process = self.teacher.process
        t = self.earliest + (1 - self.earliest) * draws.child("t").uniform()
        x_t = process.corrupt(batch.x_0, t, draws.child("x_t"))
        targets, origin = self.gather(x_t, t, batch.cond, number, draws.child("targets"))
        student = self.model.predict(x_t, t, batch.cond, self._lam(draws))
        total = torch.zeros(len(x_t), device=x_t.device)
        for i, target in enumerate(targets):
            total = total + self._summed(student, target, origin == i)
        masked = (x_t == process.mask_index).sum(1).clamp_min(1).to(total)
        loss = total if self.per == "sequence" else total / masked
        return {"loss": loss, "distance_per_token": (total / masked).detach()}

    def begin_step(self, step: int) -> None:
        self._begin_round(self._round(step))

    def diagnostics(self, batch: Batch, draws: Draws, probe_batch: ProbeBatch | None = None) -> dict[str, float]:
        """The round, and the number of steps that its student is made for."""
        number = self._teacher_round or 0
        return {"round": float(number), "sampling_steps": round(1 / (self.substeps * self.step_size(number)))}

    def _round(self, step: int) -> int:
        return min(step // self.steps_per_round, self.rounds - 1)

    def step_size(self, number: int) -> float:
        """δ of a round."""
        return self.substeps**number * (1 - self.earliest) / self.base_steps

    @torch.no_grad()
    def gather(
        self, x_t: Tensor, t: Tensor, cond: Tensor | None, number: int, draws: Draws
    ) -> tuple[list[Prediction], Tensor]:
        """(the teacher's predictions before its k steps, which of them is a position's target: [B, D], −1: none)."""
        process, size = self.teacher.process, self.step_size(number)
        predict = self._teacher(number, draws)
        x, predictions = x_t, []
        origin = torch.where(x_t == process.mask_index, self.substeps - 1, -1)
        for i, now in enumerate(self._times(t, size)):
            predictions.append(predict(x, now, cond))
            later = process.posterior(x, predictions[-1], now, (now - size).clamp_min(0), draws.child("reveal", i))
            origin = torch.where(x != later, i, origin)
            x = later
        return predictions, origin

    def _times(self, t: Tensor, size: float) -> list[Tensor]:
        """When the teacher looks: k times [B], none before ε."""
        if self.substep_times == "steps":
            times = [t - i * size for i in range(self.substeps)]
        else:
            end = t - self.substeps * size
            times = [t * c + (1 - t) * end for c in torch.linspace(1, 0, self.substeps).tolist()]
        return [time.clamp_min(self.earliest) for time in times]

    def _summed(self, student: Prediction, target: Prediction, where: Tensor) -> Tensor:
        """Σ_d distance over the positions `where` [B, D]: [B], the student's logits recomputed in the backward pass."""

        def read(h: Tensor, rows: Tensor, log_q: Tensor) -> Tensor:
            return self.distance(student.log_probs_from(h, rows)[:, 0], log_q)

        log_q = torch.no_grad()(lambda rows: target.log_probs(rows)[:, 0])
        return student.summed(read, ((rows, log_q(rows)) for rows in student.chunks(where=where)), len(where))

    def _teacher(self, number: int, draws: Draws) -> Predict:
        if number == 0:
            return self.teacher.predict
        return lambda x, t, cond: self.round_teacher.predict(x, t, cond, self._lam(draws))

    def _lam(self, draws: Draws) -> Tensor:
        return self._frozen[1].sample(1, draws.child("lambda")).to(draws.device)

    def _begin_round(self, number: int) -> None:
        """Makes the student the teacher if a round has begun since the last call or the restored checkpoint."""
        if self._teacher_round is None:
            self._teacher_round = int(self.teacher_round)
        if number <= self._teacher_round:
            return
        pairs = list(zip(self.round_teacher.parameters(), self.model.parameters(), strict=True))
        with torch.no_grad():
            for old, new in pairs:
                with whole(old, new):
                    old.copy_(new)
            for old, new in zip(self.round_teacher.buffers(), self.model.buffers(), strict=True):
                old.copy_(new)
        self.teacher_round.fill_(number)
        self._teacher_round = number


@contextlib.contextmanager
def whole(changed: nn.Parameter, read: nn.Parameter) -> Iterator[None]:
    """Both parameters whole on every rank, where ZeRO-3 keeps slices of them; what is written into `changed` stays."""
    if not hasattr(changed, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([read]), deepspeed.zero.GatheredParameters([changed], modifier_rank=0):
        yield


def _difference(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log p − log q, 0 at states that both forbid: there it would be rounding noise of LOG_ZERO."""
    return torch.where(log_q > LOG_ZERO / 2, log_p - log_q, torch.zeros_like(log_p))


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl-fwd": lambda log_p, log_q: (log_q.exp() * (log_q - log_p)).sum(-1),
    "kl-bwd": lambda log_p, log_q: (log_p.exp() * (log_p - log_q)).sum(-1),
    "mse": lambda log_p, log_q: (log_p.exp() - log_q.exp()).square().sum(-1),
    "tv": lambda log_p, log_q: (log_p.exp() - log_q.exp()).abs().sum(-1) / 2,
    # of the tables' states, forbidden ones counting 0
    "mse-log": lambda log_p, log_q: _difference(log_p, log_q).square().mean(-1),
    "tv-log": lambda log_p, log_q: _difference(log_p, log_q).abs().sum(-1),
}
"""By name, of the student's log-probabilities log p and the teacher's log q, both [P, S]: [P]; see Sdtt."""
