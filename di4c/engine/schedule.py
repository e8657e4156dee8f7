"""The learning rate as a function of the step, so that nothing of it needs to be saved."""

import math

from di4c.engine.options import ScheduleOptions


def lr_factor(step: int, steps: int, schedule: ScheduleOptions) -> float:
    """The factor on the peak learning rate at step 0 … steps − 1.

    Warm-up (step + 1)/warmup, then with r the part done of the remaining steps: 1 (constant), linear
    1 − (1 − final)·r, or cosine final + (1 − final)·(1 + cos πr)/2.
    """
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    if schedule.decay == "constant":
        return 1.0
    done = min(1.0, (step - schedule.warmup) / max(1, steps - 1 - schedule.warmup))
    shape = 1 - done if schedule.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
    final = schedule.final or 0.0
    return final + (1 - final) * shape
