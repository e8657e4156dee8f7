"""What distribution matching is told: its terms, the critic, where x_t comes from, and how weights move."""

from dataclasses import dataclass
from typing import Literal

from di4c.contracts import Backbone, TimeSampler
from di4c.errors import SpecError, not_negative


@dataclass(frozen=True)
class OnPolicy:
    """x_t from rollouts in `steps` even steps, of the student or of the teacher, in a `share` of the steps of training.

    A rollout stops at a time of its grid, 1 included, alike for all examples of a step.
    """

    of: Literal["student", "teacher"]
    steps: int
    share: float = 1.0

    def __post_init__(self):
        if self.steps < 1 or not 0 < self.share <= 1:
            raise SpecError(f"objective.matching.on_policy: steps ≥ 1 and a share in (0, 1]; found {self}")


@dataclass(frozen=True)
class Matching:
    """The matching term.

    x_s: noise anew on the student's whole sample, or, under masked noise, the "bridge" from x_t, which hides only what x_t hid and keeps
    every position that x_s hides in use. noise_time: the time sampler of s ("fresh"), or of s/t ("bridge"); by default even above 0.05.
    most: the largest c(s) of masked noise. clip: bound of the log-ratios of critic and teacher, or null. renoised: how many x_s each of
    the student's samples gets, for critic and student. time: the time sampler of t, if it is not the objective's. on_policy: x_t of rollouts.
    """

    x_s: Literal["bridge", "fresh"]
    weight: float = 1.0
    time: TimeSampler | None = None
    noise_time: TimeSampler | None = None
    most: float = 5.0
    clip: float | None = 15.0
    renoised: int = 1
    on_policy: OnPolicy | None = None

    def __post_init__(self):
        not_negative("objective.matching.weight", self.weight)
        if not self.most > 0 or self.renoised < 1 or not (self.clip is None or self.clip > 0):
            raise SpecError(
                f"objective.matching: most > 0, renoised ≥ 1 and clip > 0 or null; found {self.most}, {self.renoised} and {self.clip}"
            )


@dataclass(frozen=True)
class Critic:
    """The denoiser of the student's samples.

    backbone: its network; null: a copy of the teacher's. warmup: steps in which it is trained alone, the student at rest. updates: its
    updates for each of the student's, which rests in the steps between. Its learning rate and betas: train.optimizer.lr_multipliers and
    betas_of, {critic: …}.
    """

    backbone: Backbone | None = None
    warmup: int = 0
    updates: int = 1

    def __post_init__(self):
        if self.warmup < 0 or self.updates < 1:
            raise SpecError(f"objective.critic: warmup ≥ 0 and updates ≥ 1; found {self.warmup}, {self.updates}")

    def alone(self, step: int) -> bool:
        """Whether a step trains the critic alone."""
        return step < self.warmup or (step - self.warmup) % self.updates > 0


@dataclass(frozen=True)
class Ramp:
    """A factor on a term's weight: `first` up to the step `start`, then linear to `last` over `steps`."""

    first: float
    last: float
    steps: int
    start: int = 0

    def __post_init__(self):
        not_negative("objective.ramps, first", self.first)
        not_negative("objective.ramps, last", self.last)
        if self.steps < 1 or self.start < 0:
            raise SpecError(f"objective.ramps: steps ≥ 1 and start ≥ 0; found {self}")

    def __call__(self, step: int) -> float:
        done = min(max(step - self.start, 0) / self.steps, 1.0)
        return self.first + (self.last - self.first) * done
