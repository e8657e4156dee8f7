"""Students of students: rounds of distillation, the student of one the teacher of the next."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from di4c.contracts import Measured, Pipeline, Runs, merged
from di4c.errors import SpecError
from di4c_plugins.pipelines.round_record import Record, Round, StopRule

SEEDS_APART = 1000
"""Rounds draw anew: each has a seed of its own, the first one the spec's."""

MAY_DIFFER = ("teacher", "student", "latent", "objective", "train", "deepspeed")


class Rounds(Pipeline):
    """Distils round after round, each from the student before, until `max` or a stop rule; RUN/round-1 and so on.

    stop: when to end earlier; without it all rounds are run, and the last one's student is the result; with it, the best one's.
    later: what differs from the second round on, its teacher at least: {teacher: averaged, train: {steps: 300}}; the teacher is
    made of the run of the round before. RUN/rounds.json and rounds.csv say what was measured, and why the rounds ended.
    """

    def __init__(self, *, max: int, later: dict[str, Any], stop: StopRule | None = None):
        if max < 1:
            raise SpecError(f"pipeline.max: expected a number of rounds ≥ 1, found {max}.")
        for key in later:
            if key not in MAY_DIFFER:
                raise SpecError(f"pipeline.later.{key}: rounds may differ in {', '.join(MAY_DIFFER)}.")
        self.max, self.stop = max, stop
        self.teacher = _teacher_of(later)
        self.changes = {key: value for key, value in later.items() if key != "teacher"}

    def planned(self, spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        if spec["task"] != "distill":
            raise SpecError(f"pipeline: rounds are only of task distill; found {spec['task']!r}.")
        if spec["student"].get("lora") is not None:
            raise SpecError(
                "pipeline: students with student.lora are adapters of their teacher and cannot be teachers themselves."
            )
        if self._samples and "eval" not in spec:
            raise SpecError(
                "pipeline.stop.steps: needs an eval section, whose samples and seeds the rounds are judged with."
            )
        return {f"round-{number}": self._spec(number, spec) for number in range(1, min(self.max, 2) + 1)}

    def run(self, runs: Runs) -> str:
        # Every time from the first round on: what is trained and measured is not done again, and no record can be out of date.
        record = Record(self.max, self.stop)
        if self._samples:  # first, since it tells a mistake in the rule before anything is trained
            record = self._noted(runs, record, Round(0), runs.evaluate(None, self.stop.steps))
        while not (found := record.verdict()).over:
            number = record.last + 1
            name, spec = f"round-{number}", self._spec(number, runs.spec)
            runs.say(f"round {number} of at most {self.max}: {runs.folder / name}")
            runs.train(name, spec)
            entry = Round(number, name, spec["train"]["steps"], runs.seconds(name))
            record = self._noted(runs, record, entry, self._values(runs, name))
        record.write(runs)
        runs.say(f"{runs.folder}: {found.reason}")
        return f"round-{found.chosen}"

    @property
    def _samples(self) -> bool:
        """Whether the rule looks at samples, and not at the training."""
        return self.stop is not None and self.stop.steps is not None

    def _spec(self, number: int, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The spec of round `number` (from 1)."""
        if number == 1:
            return dict(spec)
        teacher = self.teacher | {"run": f"{spec['train']['run']}/round-{number - 1}"}
        return merged(spec, self.changes) | {"teacher": teacher, "seed": spec["seed"] + SEEDS_APART * (number - 1)}

    def _values(self, runs: Runs, name: str) -> dict[str, Measured]:
        if self._samples:
            return runs.evaluate(name, self.stop.steps)
        return {key: Measured(value, 0.0, False) for key, value in runs.training_values(name).items()}

    def _noted(self, runs: Runs, record: Record, entry: Round, values: Mapping[str, Measured]) -> Record:
        """The record with one more round, on disk too."""
        better = self.stop is not None and self.stop.direction(values)
        entry = replace(entry, values={name: {"mean": value.mean, "std": value.std} for name, value in values.items()})
        record = replace(record, rounds=[*record.rounds, entry], higher_is_better=better)
        record.write(runs)
        if self.stop is not None:
            metric, gain = self.stop.metric, record.verdict().gains.get(entry.number)
            told = f"{metric} {values[metric].mean:.5g}" + ("" if gain is None else f", gain {gain:.2%}")
            runs.say(f"{f'round {entry.number}' if entry.number else 'teacher'}: {told}")
        return record


def _teacher_of(later: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the teacher that a student becomes."""
    teacher = later.get("teacher")
    teacher = {"name": teacher} if isinstance(teacher, str) else teacher
    if not isinstance(teacher, Mapping) or not isinstance(teacher.get("name"), str):
        raise SpecError(
            f"pipeline.later.teacher: expected the teacher that a student becomes, e.g. averaged; found {teacher!r}."
        )
    if "run" in teacher:
        raise SpecError("pipeline.later.teacher.run: left out; it is the round before.")
    return dict(teacher)
