"""The stop rule, and what is written of the rounds."""

import csv
import json
import math

import pytest

from di4c_plugins.pipelines.round_record import Record, Round, StopRule, Verdict


def rounds(*values: float, teacher: float | None = None) -> list[Round]:
    found = [] if teacher is None else [Round(0, values={"fd": {"mean": teacher, "std": 0.0}})]
    return found + [Round(n, f"round-{n}", 10, 1.0, {"fd": {"mean": v, "std": 0.1}}) for n, v in enumerate(values, 1)]


def found(entries: list[Round], most: int = 5, gain: float | None = 0.1, higher_is_better: bool = False) -> Verdict:
    stop = None if gain is None else StopRule("fd", gain, steps=2)
    return Record(most, stop, entries, higher_is_better).verdict()


class Folder:
    """As much of `Runs` as a record needs."""

    def __init__(self, folder):
        self.folder = folder

    def read(self, file: str) -> str | None:
        return (self.folder / file).read_text() if (self.folder / file).exists() else None

    def write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)


@pytest.mark.parametrize(
    ("values", "teacher", "over", "chosen"),
    [
        ((), 50.0, False, 0),
        ((20.0,), 50.0, False, 1),
        ((20.0, 17.0), 50.0, False, 2),  # 15 % are enough
        ((20.0, 19.0), 50.0, True, 2),  # 5 % are not, though the second round is better
        ((20.0, 25.0), 50.0, True, 1),  # worse: the first is kept
        ((49.0,), 50.0, True, 1),  # the first round is compared with the teacher
        ((49.0,), None, False, 1),  # unless that was not measured
        ((20.0, math.nan), 50.0, True, 1),
        ((20.0, 10.0, 5.0, 2.0, 1.0), 50.0, True, 5),  # the limit
    ],
)
def test_rounds_end_when_one_gains_too_little(values, teacher, over, chosen):
    outcome = found(rounds(*values, teacher=teacher))
    assert (outcome.over, outcome.chosen) == (over, chosen)


def test_gains_are_relative_and_may_point_upwards():
    outcome = found(rounds(0.5, 0.6, teacher=0.4), higher_is_better=True)
    assert not outcome.over and outcome.chosen == 2 and outcome.gains == pytest.approx({1: 0.25, 2: 0.2})
    assert found(rounds(-2.0, -2.5)).gains == pytest.approx({2: 0.25})


def test_without_a_rule_the_last_round_is_the_result():
    assert found(rounds(1.0, 9.0), 2, None).chosen == 2
    assert not found(rounds(1.0), 2, None).over


def test_a_larger_limit_goes_on():
    done = rounds(20.0, 10.0, teacher=50.0)
    assert found(done, 2).over and not found(done, 3).over


def test_the_record_says_why(tmp_path):
    stop = StopRule("fd", 0.1, steps=2)
    record = Record(5, stop, rounds(20.0, 19.0, teacher=50.0))
    record.write(Folder(tmp_path))
    stored = json.loads((tmp_path / "rounds.json").read_text())
    assert (
        stored["over"] and stored["chosen"] == 2 and "round 2 gains 5.00% in fd, less than 10.00%" in stored["reason"]
    )
    rows = list(csv.DictReader((tmp_path / "rounds.csv").read_text().splitlines()))
    assert [row["round"] for row in rows] == ["0", "1", "2"] and [row["chosen"] for row in rows] == ["0", "0", "1"]
    assert float(rows[2]["gain"]) == pytest.approx(0.05) and rows[1]["fd"] == "20.0"
