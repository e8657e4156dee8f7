"""`rounds:`, students of students: the student of a round is the teacher of the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from di4c.config.construct import full_entry
from di4c.errors import SpecError


@dataclass(frozen=True)
class StopSpec:
    """Rounds end when one gains less than `min_gain`, relative to the value of the round before.

    metric: a value that one of eval.metrics reports, measured with `steps` sampling steps and the eval section's samples and
    seeds, of the first teacher too; without `steps`, a column of the round's metrics.csv (a loss or a diagnostic), its last
    value. higher_is_better: which way is good; by default as the metric says, and a column of metrics.csv the lower the better.
    """

    metric: str
    min_gain: float
    steps: int | None = None
    higher_is_better: bool | None = None

    def __post_init__(self):
        if self.steps is not None and self.steps < 1:
            raise SpecError(f"rounds.stop.steps: expected a number of sampling steps ≥ 1, found {self.steps}.")


@dataclass(frozen=True)
class RoundsSpec:
    """At most `max` rounds, each in a folder of its own, train.run/round-1 and so on.

    teacher: the entry, without `run`, of the teacher that a student becomes. stop: when to end earlier; without it all rounds
    are run, and the last one's student is the result; with it, the best one's. later: what differs from the second round on,
    e.g. {train: {steps: 300}}.
    """

    max: int
    teacher: Any
    stop: StopSpec | None = None
    later: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.max < 1:
            raise SpecError(f"rounds.max: expected a number of rounds ≥ 1, found {self.max}.")
        allowed = ("student", "latent", "objective", "train", "deepspeed")
        for key in self.later:
            if key not in allowed:
                raise SpecError(f"rounds.later.{key}: rounds may differ in {', '.join(allowed)}.")
        if "run" in full_entry(self.teacher, "rounds.teacher"):
            raise SpecError("rounds.teacher.run: left out; it is the round before.")

    def values_of(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """The spec of round `number` (from 1) in plain values, from those of the whole spec without its `rounds`."""
        run = values["train"]["run"]
        own = {"train": {"run": round_folder(run, number)}}
        if number == 1:
            return merged(values, own)
        changed = merged(merged(values, self.later), own)
        teacher = full_entry(self.teacher, "rounds.teacher") | {"run": round_folder(run, number - 1)}
        return changed | {"teacher": teacher, "seed": values["seed"] + SEEDS_APART * (number - 1)}


SEEDS_APART = 1000
"""Rounds draw anew: each has a seed of its own, the first one the spec's."""


def round_folder(run: str, number: int) -> str:
    """The run folder of a round."""
    return f"{run}/round-{number}"


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values with changes, mappings merged key by key; one that names another part replaces the old one whole."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        other = isinstance(change, Mapping) and isinstance(old, Mapping) and change.get("name", old.get("name")) != old.get("name")
        both = isinstance(change, Mapping) and isinstance(old, Mapping) and not other
        result[key] = merged(old, change) if both else change
    return result
