"""What the rounds gave, and what follows from it: rounds.json, rounds.csv, and the rule that ends them."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from di4c.config.rounds_spec import RoundsSpec
from di4c.engine.files import replace_file
from di4c.errors import CheckpointError

FILE = "rounds.json"


@dataclass(frozen=True)
class Round:
    """One round: 0 is the teacher that the first round began from, which has neither run nor training.

    values: what was measured of its student, {name: {"mean", "std"}}; std over sampling seeds (0 of a training value).
    """

    number: int
    run: str | None = None
    steps: int = 0
    seconds: float = 0.0
    values: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether the rounds are over and why; chosen: the round whose student is the result so far (0: none yet)."""

    over: bool
    reason: str
    chosen: int
    gains: dict[int, float]


def verdict(rounds: list[Round], spec: RoundsSpec, higher_is_better: bool) -> Verdict:
    """What the finished rounds say, by the spec's limit and stop rule.

    The gain of round r is (v_{r−1} − v_r)/|v_{r−1}|, with the other sign where higher is better; the first round's is
    against the teacher, if that was measured. A value that is not finite gains nothing. Of several rounds the best is chosen.
    """
    students = [entry for entry in rounds if entry.number]
    if not students:
        return Verdict(False, "no round is finished yet", 0, {})
    last = students[-1].number
    limit = Verdict(last >= spec.max, f"rounds.max: {spec.max} rounds are done", last, {})
    if spec.stop is None:
        return limit if limit.over else Verdict(False, f"round {last} of {spec.max} is done", last, {})
    sign = -1.0 if higher_is_better else 1.0
    cost = {entry.number: sign * entry.values[spec.stop.metric]["mean"] for entry in rounds}
    gains = {n: _gain(cost[n - 1], cost[n]) for n in cost if n - 1 in cost}
    chosen = min((entry.number for entry in students), key=lambda n: cost[n] if math.isfinite(cost[n]) else math.inf)
    if last in gains and not gains[last] >= spec.stop.min_gain:
        told = f"round {last} gains {gains[last]:.2%} in {spec.stop.metric}, less than {spec.stop.min_gain:.2%} (rounds.stop.min_gain)"
        return Verdict(True, told, chosen, gains)
    reason = limit.reason if limit.over else f"round {last} of {spec.max} is done"
    return Verdict(limit.over, reason, chosen, gains)


def _gain(before: float, after: float) -> float:
    if not (math.isfinite(before) and math.isfinite(after)):
        return -math.inf
    return (before - after) / abs(before) if before else math.copysign(math.inf, before - after) if after else 0.0


@dataclass
class Record:
    """The rounds of one folder. higher_is_better: of the stop rule's metric."""

    folder: Path
    rounds: list[Round] = field(default_factory=list)
    higher_is_better: bool = False

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """The record on disk, an empty one if there is none. Raises CheckpointError where it is damaged."""
        file = folder / FILE
        if not file.exists():
            return cls(folder)
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            return cls(folder, [Round(**entry) for entry in stored["rounds"]], stored["higher_is_better"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: not a record of rounds ({error!r}); delete it, and --resume measures again") from error

    def finished(self, number: int) -> bool:
        """Whether a round is trained and measured."""
        return any(entry.number == number for entry in self.rounds)

    @property
    def last(self) -> int:
        """The number of the last finished round."""
        return max((entry.number for entry in self.rounds), default=0)

    @property
    def steps(self) -> int:
        """Updates of all rounds together."""
        return sum(entry.steps for entry in self.rounds)

    def verdict(self, spec: RoundsSpec) -> Verdict:
        """See the function of this name."""
        return verdict(self.rounds, spec, self.higher_is_better)

    def write(self, spec: RoundsSpec) -> Verdict:
        """Writes rounds.json and rounds.csv; the verdict."""
        found = self.verdict(spec)
        content = {
            "over": found.over, "reason": found.reason, "chosen": found.chosen,
            "stop": None if spec.stop is None else asdict(spec.stop), "max": spec.max, "higher_is_better": self.higher_is_better,
            "rounds": [asdict(entry) for entry in self.rounds],
        }  # fmt: skip
        replace_file(self.folder / FILE, json.dumps(content, indent=1) + "\n")
        replace_file(self.folder / "rounds.csv", self._table(found))
        return found

    def _table(self, found: Verdict) -> str:
        """A row a round: number, run, steps, seconds, gain, whether chosen, and every value with its spread."""
        names = list(dict.fromkeys(name for entry in self.rounds for name in entry.values))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        spreads = [f"{name}{end}" for name in names for end in ("", "_std")]
        writer.writerow(["round", "run", "steps", "seconds", "gain", "chosen", *spreads])
        for entry in self.rounds:
            values: list[Any] = [entry.values.get(name, {}).get(key, "") for name in names for key in ("mean", "std")]
            gain = found.gains.get(entry.number, "")
            writer.writerow([entry.number, entry.run or "", entry.steps, entry.seconds, gain, int(entry.number == found.chosen), *values])
        return text.getvalue()
