"""The verdict on a student, from rows of known means and spreads, and the tool that stores it."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from di4c.errors import DataError
from tools.significance import store, verdict

ROOT = Path(__file__).parents[2]


DISTANCES = {"pair": False, "gram": False}


def row(model, steps, pair, gram, std=0.003):
    size = "inf" if model == "student" else None
    metrics = {"pair": {"mean": pair, "std": std}, "gram": {"mean": gram, "std": std}}
    return {
        "model": model,
        "mixture_size": size,
        "steps": steps,
        "nfe": steps,
        "latency_ms_per_sample": 1.0,
        "metrics": metrics,
    }


def judge(pair, gram, directions=DISTANCES):
    rows = [row("teacher", 2, 0.2, 0.3), row("student", 2, pair, gram)]
    return verdict(rows, directions, judged="pair", guarded="gram", steps=[2])


@pytest.mark.parametrize(("pair", "gram", "beats", "no_worse"), [
    (0.19, 0.30, True, True),      # spread √2·0.003 ≈ 0.0042
    (0.197, 0.30, False, True),    # lower, but within the spread
    (0.21, 0.25, False, True),
    (0.19, 0.304, True, True),     # higher, but within the spread
    (0.19, 0.305, True, False),
])  # fmt: skip
def test_margins_are_held_against_the_spread(pair, gram, beats, no_worse):
    outcome = judge(pair, gram)
    case = outcome["at"][0]
    assert (case["beats"], case["no_worse"], outcome["holds"]) == (beats, no_worse, beats and no_worse)
    assert case["judged"]["margin"] == pytest.approx(0.2 - pair)
    assert case["judged"]["spread"] == pytest.approx(0.003 * 2**0.5)


def test_it_holds_only_at_all_steps():
    rows = [row("teacher", n, 0.2, 0.3) for n in (2, 4)] + [row("student", 2, 0.1, 0.3), row("student", 4, 0.2, 0.3)]
    outcome = verdict(rows, DISTANCES, judged="pair", guarded="gram", steps=[2, 4])
    assert [case["beats"] for case in outcome["at"]] == [True, False] and not outcome["holds"]


def test_what_is_missing_is_named():
    with pytest.raises(DataError, match="no pair of the student at 2 steps"):
        verdict([row("teacher", 2, 0.2, 0.3)], DISTANCES, judged="pair", guarded="gram", steps=[2])


@pytest.mark.parametrize(("pair", "gram", "beats", "no_worse"), [(0.21, 0.31, True, True), (0.19, 0.29, False, False)])
def test_where_higher_is_better_a_higher_student_is(pair, gram, beats, no_worse):
    case = judge(pair, gram, {"pair": True, "gram": True})["at"][0]
    assert (case["beats"], case["no_worse"]) == (beats, no_worse)
    assert case["judged"]["margin"] == pytest.approx(pair - 0.2)


@pytest.mark.parametrize("name", ["pair", "gram"])
@pytest.mark.parametrize("unknown", [{"pair": None, "gram": None}, {}])
def test_a_metric_without_a_good_way_judges_nothing(name, unknown):
    with pytest.raises(DataError, match=f"which way '{name}' is good is not known"):
        judge(0.1, 0.1, {**DISTANCES, name: None} if unknown else {n: w for n, w in DISTANCES.items() if n != name})


def test_the_tool_stores_the_evaluation_with_its_verdict(tmp_path):
    rows = [row("teacher", 2, 0.2, 0.3), row("student", 2, 0.1, 0.3)]
    (tmp_path / "eval.json").write_text(json.dumps({"rows": rows, "reference_values": {}, "commit": "abc"}))
    (tmp_path / "tried.json").write_text(json.dumps([{"what": "fewer atoms"}]))
    command = [sys.executable, ROOT / "tools/significance.py", tmp_path / "eval.json", "--judged", "pair", "--guarded", "gram",
               "--tried", tmp_path / "tried.json", "--steps", "2", "--about", "A test.", "--cpu-seconds", "student=12.5", "--out", tmp_path / "out.json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "better by 0.10000" in done.stdout, done.stderr
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["verdict"]["holds"] and stored["rows"] == rows and stored["commit"] == "abc"
    assert stored["tried"] == [{"what": "fewer atoms"}]
    assert stored["cpu_seconds"] == {"student": 12.5} and stored["about"] == "A test."


def test_one_sampling_seed_gives_no_verdict(tmp_path):
    """Its spread is 0, which every gain exceeds."""
    rows = [row("teacher", 2, 0.2, 0.3, std=0.0), row("student", 2, 0.1, 0.3, std=0.0)]
    (tmp_path / "eval.json").write_text(json.dumps({"rows": rows, "settings": {"seeds": 1}}))
    arguments = argparse.Namespace(eval=tmp_path / "eval.json", out=tmp_path / "out.json")
    with pytest.raises(DataError, match="one sampling seed, so no spread"):
        store(arguments)
    assert not arguments.out.exists()
