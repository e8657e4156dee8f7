"""When rounds of distillation are over, which one's student is the result, and what is written down of them."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from di4c.contracts import Measured, Runs
from di4c.errors import SpecError
from di4c.files import csv_text


@dataclass(frozen=True)
class StopRule:
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
            raise SpecError(f"pipeline.stop.steps: expected a number of sampling steps ≥ 1, found {self.steps}.")

    def direction(self, values: Mapping[str, Measured]) -> bool:
        """Whether higher is better of `metric`. Raises SpecError where it is not among the values, or that is not known."""
        if self.metric not in values:
            source = "eval.metrics report" if self.steps else "metrics.csv (no pipeline.stop.steps is given) has"
            raise SpecError(f"pipeline.stop.metric: no {self.metric!r}; {source} {', '.join(values)}.")
        known = values[self.metric].higher_is_better
        better = known if self.higher_is_better is None else self.higher_is_better
        if better is None:
            told = f"which way {self.metric!r} is good is not known; set pipeline.stop.higher_is_better"
            raise SpecError(f"pipeline.stop: {told}.")
        return better


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
        return self.rounds[-1].number if self.rounds else 0

    def verdict(self) -> Verdict:
        """What the finished rounds say, by the limit of `most` rounds and the rule.

        The gain of round r is (v_{r−1} − v_r)/|v_{r−1}|, with the other sign where higher is better; the first round's is
        against the teacher, if that was measured. A value that is not finite gains nothing. With a rule the best of several rounds
        is chosen, without one the last.
        """
        last, stop = self.last, self.stop
        if not last:
            return Verdict(False, "no round is finished yet", 0, {})
        over = last >= self.most
        reason = f"pipeline.max: {self.most} rounds are done" if over else f"round {last} of {self.most} is done"
        if stop is None:
            return Verdict(over, reason, last, {})
        sign = -1.0 if self.higher_is_better else 1.0
        cost = {entry.number: sign * entry.values[stop.metric]["mean"] for entry in self.rounds}
        gains = {n: _gain(cost[n - 1], cost[n]) for n in cost if n - 1 in cost}
        chosen = min((n for n in cost if n), key=lambda n: cost[n] if math.isfinite(cost[n]) else math.inf)
        if last in gains and not gains[last] >= stop.min_gain:
            over, gain = True, f"round {last} gains {gains[last]:.2%} in {stop.metric}"
            reason = f"{gain}, less than {stop.min_gain:.2%} (pipeline.stop.min_gain)"
        return Verdict(over, reason, chosen, gains)

    def write(self, runs: Runs) -> None:
        """Writes rounds.json and rounds.csv: a row a round with its gain, whether it is chosen, and every value with its spread."""
        found = self.verdict()
        content = {
            "over": found.over, "reason": found.reason, "chosen": found.chosen,
            "stop": None if self.stop is None else asdict(self.stop), "max": self.most, "higher_is_better": self.higher_is_better,
            "rounds": [asdict(entry) for entry in self.rounds],
        }  # fmt: skip
        runs.write("rounds.json", json.dumps(content, indent=1) + "\n")
        rows = [
            {"round": entry.number, "run": entry.run or "", "steps": entry.steps, "seconds": entry.seconds}
            | {"gain": found.gains.get(entry.number, ""), "chosen": int(entry.number == found.chosen)}
            | {
                f"{name}{end}": value[key]
                for name, value in entry.values.items()
                for end, key in (("", "mean"), ("_std", "std"))
            }
            for entry in self.rounds
        ]
        runs.write("rounds.csv", csv_text(rows))


def _gain(before: float, after: float) -> float:
    if not (math.isfinite(before) and math.isfinite(after)):
        return -math.inf
    return (before - after) / abs(before) if before else math.copysign(math.inf, before - after) if after else 0.0
