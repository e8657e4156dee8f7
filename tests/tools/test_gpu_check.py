"""tools/gpu_check.sh at tiny size, and its verdict on what a GPU may have measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from bench import parse
from gpu_checks.bench import CASES, ON_CPU, TINY
from gpu_checks.record import Record
from gpu_checks.table import gpu_table
from gpu_checks.training import reports
from gpu_checks.verdict import LIMITS, verdict
from store_benchmarks import store_gpu_check

H100 = "NVIDIA H100 80GB HBM3"


def check(*arguments: str, timeout: int = 280) -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / "tools/gpu_check.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ)


def test_the_benchmarks_run_at_tiny_size_and_count_for_no_limit(tmp_path):
    done = check(str(tmp_path), "bench", "--cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(
        "OK | bench: 8 measured | limits: loss, M = 16 ≤ 25 ms not measured;"
    )
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert stored["finished"] and {"device", "torch", "triton", "python", "commit", "versions"} <= set(
        stored["machine"]
    )
    assert list(stored["results"]) == [name for name in CASES if "compiled" not in name]


@pytest.mark.slow
def test_all_parts_run_at_tiny_size(tmp_path):
    done = check(str(tmp_path), "--cpu", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(json.loads((tmp_path / f"{part}.json").read_text())["finished"] for part in ("tests", "bench", "train"))


def test_without_a_gpu_it_says_what_to_do(tmp_path):
    done = check(str(tmp_path), "tests")
    assert (
        done.returncode == 2
        and done.stderr == "error: torch sees no CUDA device; --cpu checks at tiny size without one\n"
    )


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_a_line_that_bench_understands(name):
    case = CASES[name]
    arguments = parse(f"{case} {ON_CPU} {TINY[case.split()[0]]}".split())
    assert arguments.dtype == "bf16" and arguments.in_process


def measured(**changes: float) -> dict:
    """Results that hold every limit; changes: case → milliseconds."""
    return {
        name: {
            "project": {
                "seconds": changes.get(name, 10.0) / 1e3,
                "peak_megabytes": 1000.0,
                "share_of_peak": 0.4,
                "report": {},
            }
        }
        for name in CASES
    }


def stored(folder: Path, results: dict, device: str = H100, finished: bool = True, part: str = "bench") -> Path:
    (folder / f"{part}.json").write_text(
        json.dumps({"machine": {"device": device}, "finished": finished, "results": results})
    )
    return folder


def test_limits_that_hold(tmp_path):
    line, well = verdict(stored(tmp_path, measured()), ("bench",))
    assert well and line.startswith("OK | bench: 10 measured") and line.count(" held") == len(LIMITS)
    assert "loss, M = 16 ≤ 25 ms (10) held" in line and "pretrain ≥ 0.35 share of peak (0.4) held" in line


def test_a_missed_limit_fails(tmp_path):
    line, well = verdict(stored(tmp_path, measured(**{"step, late": 70.0})), ("bench",))
    assert not well and line.startswith("FAILED") and "step, late ≤ 65 ms (70) missed" in line


@pytest.mark.parametrize("gone", ["no result", "an error", "cut off"])
def test_what_such_a_card_did_not_measure_fails(gone, tmp_path):
    results = measured()
    if gone == "an error":
        results["pretrain"] = {"command": "…", "error": "OutOfMemoryError: …"}
    elif gone == "no result":
        del results["pretrain"]
    line, well = verdict(stored(tmp_path, results, finished=gone != "cut off"), ("bench",))
    assert not well and line.startswith("FAILED")
    assert ("pretrain ≥ 0.35 share of peak not measured" in line) == (gone != "cut off") and ("cut off" in line) == (
        gone == "cut off"
    )


def test_a_slower_card_is_held_to_no_limit(tmp_path):
    line, well = verdict(stored(tmp_path, measured(**{"loss, M = 16": 400.0}), device="NVIDIA L4"), ("bench",))
    assert well and line.count("not measured") == len(LIMITS)


def test_a_failed_test_a_bad_training_and_a_missing_part_fail(tmp_path):
    stored(tmp_path, {"a": {"outcome": "passed"}, "b": {"outcome": "skipped"}}, part="tests")
    assert verdict(tmp_path, ("tests",)) == (
        f"OK | tests: 1 passed, 0 failed, 1 skipped | limits: {len(LIMITS)} not measured",
        True,
    )
    stored(tmp_path, {"a": {"outcome": "passed"}, "b": {"outcome": "failed"}}, part="tests")
    assert not verdict(tmp_path, ("tests",))[1]
    stored(tmp_path, {"b": {"outcome": "skipped"}}, part="tests")
    assert not verdict(tmp_path, ("tests",))[1], "skipped tests say nothing"
    stored(tmp_path, {"teacher": {"ok": True}, "kill": {"ok": False}}, part="train")
    assert verdict(tmp_path, ("train",))[0].startswith("FAILED | train: failed: kill |")
    assert verdict(tmp_path, ("bench",))[0].startswith("FAILED | bench: 0 measured, cut off |")


def test_a_record_is_whole_after_every_result(tmp_path):
    record = Record(tmp_path / "folder/part.json", "cpu")
    for number, name in enumerate("ab", 1):
        record.add(name, {"ok": True})
        content = json.loads((tmp_path / "folder/part.json").read_text())
        assert len(content["results"]) == number and not content["finished"]
    record.finish()
    assert json.loads((tmp_path / "folder/part.json").read_text())["finished"]


@pytest.mark.parametrize(("steps", "losses", "ok"), [
    ((5, 10, 15), (3.0, 2.0, 1.0), True), ((5, 10, 10), (3.0, 2.0, 1.0), False), ((5, 10, 15), (3.0, float("nan"), 1.0), False),
])  # fmt: skip
def test_a_training_is_judged_by_its_record(steps, losses, ok, tmp_path):
    (tmp_path / "export").mkdir()
    rows = "".join(f"{step},{loss}\n" for step, loss in zip(steps, losses, strict=True))
    (tmp_path / "metrics.csv").write_text(f"step,loss\n{rows}")
    assert reports(tmp_path)["ok"] is ok


def test_the_table_says_which_card_and_what_is_unmeasured(tmp_path):
    assert gpu_table(None) == f"Unmeasured on a GPU: {'; '.join(CASES)}.\n"
    results = {name: result for name, result in measured().items() if name not in ("pretrain", "sample")}
    results["sample"] = {"error": "OutOfMemoryError: …"}
    machine = {"device": H100, "torch": "2.11", "triton": "3.6", "commit": "abc"}
    table = gpu_table({"machine": machine, "finished": True, "results": results})
    assert "| loss, M = 16: project | 10.0 | 1.00 | 40 % of peak | ≤ 25 ms (10) held; ≤ 1.8 GB (1) held |" in table
    assert f"bf16. {H100}, torch 2.11, Triton 3.6, commit abc. Unmeasured on a GPU: sample; pretrain." in table


@pytest.mark.parametrize(("command", "commit", "told"), [
    ("python tools/bench.py loss --dtype bf16", "abc", "was not measured on a GPU"),
    ("python tools/bench.py loss --device cuda", "abc-dirty", "does not say of which commit"),
    ("python tools/bench.py loss --device cuda", "unknown", "does not say of which commit"),
])  # fmt: skip
def test_only_what_a_gpu_has_measured_of_a_commit_is_stored(command, commit, told, tmp_path):
    content = {"machine": {"commit": commit}, "results": {"loss, M = 16": {"command": command}}}
    (tmp_path / "bench.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=told):
        store_gpu_check(tmp_path)
