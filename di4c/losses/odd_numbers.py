"""Numbers that make no sense, and regions of t in which a term would never count."""

import math
from collections.abc import Iterator
from operator import attrgetter

from di4c.losses.options import InputOptions

LEAST = {
    "components_at_a_time": 1, "chunk_bytes": 1, "distillation_copies": 1, "targets": 0, "label_dropout": 0, "data.weight": 0,
    "data.gate.scale": 0, "consistency.weight": 0, "consistency.min_time": 0, "distillation.weight": 0, "distillation.max_time": 0,
    "marginal.weight": 0,
}  # fmt: skip
"""The least that a number may be, if it is given."""


def odd_numbers(options: InputOptions) -> Iterator[str]:
    """What is wrong with single numbers."""
    for key, least in LEAST.items():
        given = getattr(options, key.split(".")[0]) is not None
        if given and not least <= (found := attrgetter(key)(options)) < math.inf:
            yield f"objective.{key}: at least {least} and finite; found {found}"
    if options.label_dropout > 1:
        yield f"objective.label_dropout: in [0, 1]; found {options.label_dropout}"


def empty_regions(options: InputOptions) -> Iterator[str]:
    """Which terms hold at none of the times that are drawn, and a teacher step that leaves no times."""
    low, high = options.time.span
    step, room = options.teacher_step, options.time.longest_step
    if step is not None and step.longest > room * (1 + 1e-9):
        yield (
            f"objective.time draws t at least a teacher step above its low end, which leaves room for steps of {room:g}; "
            f"objective.teacher_step has some of {step.longest:g}"
        )
    consistency, distillation = options.consistency, options.distillation
    if consistency is not None and not consistency.due((low, high)):
        yield f"objective.consistency.min_time {consistency.min_time:g} is above all times that objective.time draws, at most {high:g}"
    if distillation is not None and options.distillation_time is None and not distillation.due((low, high)):
        yield (
            f"objective.distillation.max_time {distillation.max_time:g} leaves none of the times that objective.time draws, at least "
            f"{low:g}; give it times of its own (objective.distillation_time), or a larger max_time"
        )
