"""Rounds of distillation: teacher → student → averaged, the teacher of the next round → …

    RUN/round-1, round-2, …   each a run folder of its own
    RUN/rounds.json, rounds.csv   what was measured of each, and why the rounds ended
    RUN/spec.yaml, run.json, export   of the whole: the chosen round's student, distilled from the first teacher
"""

import gc
import os
import shutil
from pathlib import Path

import torch

from di4c.config.spec import Spec
from di4c.config.training import train_spec
from di4c.engine import ranks
from di4c.engine.loop import Result
from di4c.engine.run_folder import RunFolder, trained_seconds
from di4c.evaluation.ranks import Ranks
from di4c.rounds.measure import Directions, Values, direction, of_run, of_teacher, of_training
from di4c.rounds.record import Record, Round, Verdict


def train_rounds(spec: Spec, *, device: torch.device, resume: bool) -> Result:
    """Trains the rounds of a spec until its limit or stop rule. Collective.

    A run that was killed at any moment, between rounds too, goes on with resume=True: a round that is measured is not
    touched again, one that is trained is measured, one that is not is continued. Raises as `train` does.
    """
    held: list[RunFolder] = []
    try:
        ranks.on_rank_zero(lambda: held.append(RunFolder(spec.train.run, resume=resume)))
        return _Rounds(spec, device, held[0] if held else None).run()
    finally:
        for folder in held:
            folder.close()


class _Rounds:
    """The rounds of one spec on this rank."""

    def __init__(self, spec: Spec, device: torch.device, folder: RunFolder | None):
        self.spec, self.rounds, self.device, self.folder = spec, spec.rounds, device, folder
        self.path = Path(spec.train.run)
        self.samples = spec.rounds.stop is not None and spec.rounds.stop.steps is not None
        self.record = ranks.on_rank_zero(lambda: Record.read(self.path))

    def run(self) -> Result:
        ranks.on_rank_zero(self._begin)
        if self.samples and not self.record.finished(0):  # first, since it tells a mistake in the rule before anything is trained
            self._note(0, None, of_teacher(self.spec, self.path / "measured", self._ranks()))
        while not (found := self.record.verdict(self.rounds)).over:
            number = self.record.last + 1
            folder = self._folder(number)
            if not self._trained(number, folder):
                return Result(self.record.steps, finished=False)
            store = self.path / "measured"
            self._note(number, folder, of_run(folder, self.spec, store, self._ranks()) if self.samples else of_training(folder))
        ranks.on_rank_zero(lambda: self._end(found))
        return Result(self.record.steps, finished=True)

    def _trained(self, number: int, folder: Path) -> bool:
        """Trains a round, or what is left of it; False if a signal ended it."""
        self._say(f"round {number} of at most {self.rounds.max}: {folder}")
        result = train_spec(self.spec.round(number), resume=True)
        gc.collect()  # the round's engine and teacher, before the next ones are built
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return result.finished

    def _note(self, number: int, folder: Path | None, measured: tuple[Values, Directions]) -> None:
        """Writes down what was measured of a round, on rank 0's word."""

        def write() -> Record:
            values, directions = measured
            better = self.rounds.stop is not None and direction(self.rounds.stop, directions)
            entry = Round(0, values=values)
            if folder is not None:
                steps = self.spec.round(number).train.steps
                entry = Round(number, folder.name, steps, trained_seconds(folder) or 0.0, values)
            record = Record(self.path, [*self.record.rounds, entry], better)
            record.write(self.rounds)
            return record

        self.record = ranks.on_rank_zero(write)
        if self.rounds.stop is not None:
            metric, gain = self.rounds.stop.metric, self.record.verdict(self.rounds).gains.get(number)
            told = f"{metric} {self.record.rounds[-1].values[metric]['mean']:.5g}" + ("" if gain is None else f", gain {gain:.2%}")
            self._say(f"{f'round {number}' if number else 'teacher'}: {told}")

    def _begin(self) -> None:
        changed = self.folder.record_start(self.spec.to_dict(), {"seed": self.spec.seed, "world_size": ranks.world_size()})
        if changed:
            self._say(f"note: the spec differs from the one that this run began with: {', '.join(changed)}")

    def _end(self, found: Verdict) -> None:
        """The chosen round's export at the top. Rank 0."""
        self.record.write(self.rounds)
        copy_export(self._folder(found.chosen) / "export", self.path / "export")
        self.folder.record_end(step=self.record.steps, finished=True)
        self._say(f"{self.path}: {found.reason}; the result is round {found.chosen}'s student")

    def _ranks(self) -> Ranks:
        return Ranks(ranks.rank(), ranks.world_size(), str(self.device))

    def _folder(self, number: int) -> Path:
        return Path(self.spec.round(number).train.run)

    def _say(self, text: str) -> None:
        if ranks.rank() == 0:
            print(text, flush=True)


def copy_export(source: Path, target: Path) -> None:
    """The export in another folder, whole or not at all; its large files are shared where the file system can."""
    temporary, old = (target.with_name(f".{target.name}.{end}") for end in ("tmp", "old"))
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=_linked)
    if target.exists():
        os.replace(target, old)
    os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
