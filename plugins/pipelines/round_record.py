"""What the rounds gave, written down: rounds.json and rounds.csv."""

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from di4c.contracts import Runs
from di4c_plugins.pipelines.stop_rule import Round, StopRule, Verdict, verdict

FILE = "rounds.json"


@dataclass(frozen=True)
class Record:
    """The rounds so far of at most `most`, and the rule. higher_is_better: of the rule's metric."""

    most: int
    stop: StopRule | None
    rounds: list[Round] = field(default_factory=list)
    higher_is_better: bool = False

    @property
    def last(self) -> int:
        """The number of the last finished round."""
        return max((entry.number for entry in self.rounds), default=0)

    def verdict(self) -> Verdict:
        """What follows from the rounds."""
        return verdict(self.rounds, self.most, self.stop, self.higher_is_better)

    def write(self, runs: Runs) -> None:
        """Writes rounds.json and rounds.csv."""
        found = self.verdict()
        content = {
            "over": found.over, "reason": found.reason, "chosen": found.chosen,
            "stop": None if self.stop is None else asdict(self.stop), "max": self.most, "higher_is_better": self.higher_is_better,
            "rounds": [asdict(entry) for entry in self.rounds],
        }  # fmt: skip
        runs.write(FILE, json.dumps(content, indent=1) + "\n")
        runs.write("rounds.csv", self._table(found))

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
            writer.writerow(
                [
                    entry.number,
                    entry.run or "",
                    entry.steps,
                    entry.seconds,
                    gain,
                    int(entry.number == found.chosen),
                    *values,
                ]
            )
        return text.getvalue()
