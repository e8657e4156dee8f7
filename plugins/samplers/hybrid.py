"""Student first, teacher for the last steps."""

import torch
from torch import Tensor

from di4c.contracts import Denoiser, Draws, ForwardProcess, LentTeacher, Prediction, Sampler, Teacher
from di4c.errors import SpecError

ROUNDING = 1e-9
"""How much later than the grid's a sampler's time may be: another device, or another way to reckon the grid, may round up."""


class Hybrid(Sampler):
    """Any sampler, its denoiser replaced by the teacher in the last `teacher_steps` of n steps (Hayakawa et al. 2025).

    The student lays out what must agree, the teacher finishes. With teacher_steps ≥ n all steps are the teacher's. The inner sampler
    must ask for a prediction at every step (no `cached`).
    """

    def __init__(
        self, process: ForwardProcess, *, sampler: Sampler, teacher_steps: int, teacher: Teacher | None = None
    ):
        if teacher is None:
            raise SpecError(
                "sampler hybrid: needs a teacher beside the student; with none at hand, use its inner sampler alone"
            )
        if teacher_steps < 0:
            raise SpecError(f"sampler hybrid: teacher_steps is {teacher_steps}; it must not be negative")
        if sampler.keeps_predictions:
            raise SpecError(
                "sampler hybrid: its inner sampler keeps predictions, and would go on with the student's where the teacher is to "
                "finish; leave cached out"
            )
        self.process, self.sampler, self.teacher_steps = process, sampler, teacher_steps
        self.teacher = LentTeacher.of(teacher)
        self.evaluations = sampler.evaluations

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
        """The inner sampler's step: which step it is, and so whose, is known to `sample` alone."""
        return self.sampler.step(denoiser, x_t, t, s, cond, draws)

    def times(self, steps: int) -> list[float]:
        return self.sampler.times(steps)

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, x_1: Tensor, steps: int, cond: Tensor | None, draws: Draws) -> Tensor:
        """x_0: [B, D]; the inner sampler runs, and its denoiser looks at the time to know whose turn it is."""
        last = min(self.teacher_steps, steps)
        handover = self.times(steps)[steps - last] + ROUNDING if last else -1.0

        finishing = self.teacher.denoiser(draws.child("teacher"))

        def by_turns(x_t: Tensor, t: Tensor, cond: Tensor | None) -> Prediction:
            model = finishing if float(t[0]) <= handover else denoiser
            return model(x_t, t, cond)

        return self.sampler.sample(by_turns, x_1, steps, cond, draws)
