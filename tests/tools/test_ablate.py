"""Grids of trainings: which runs a file means, in what order they are done, and what is collected of them."""

import json
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from di4c.errors import DataError, SpecError
from tools.ablation import collected
from tools.ablation.grid import read_grid, trials
from tools.ablation.running import Children, Job, Runner, jobs_of, run_jobs

ROOT = Path(__file__).parents[2]
GRIDS = ROOT / "tools/specs/grids"
ROWS = {
    "teacher": {"spec": "text-small-teacher", "seeds": [7]},
    "di4c": {"runs": {"teacher.run": "teacher"}, "axes": {"student.head.rank": [2, 4]}, "set": {"latent.atoms": 8}},
    "more": {"runs": {"teacher.run": "teacher", "data.cache": "di4c"}, "axes": {"student.head.rank": [2]}},
}


def made(tmp_path, spec="text-small-student", overrides=(), **changes):
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump({"judged": "ngram_tv", "seeds": [0, 1], "rows": ROWS} | changes))
    grid = read_grid(file)
    return grid, trials(grid, spec, file, tmp_path / "out", overrides)


def test_rows_axes_and_seeds_make_runs_that_refer_to_each_other(tmp_path):
    _, found = made(tmp_path, overrides=["train.steps=9"], set={"train.batch_size": 16})
    assert [trial.label for trial in found] == [
        "teacher, seed 7",
        *(f"di4c, rank {rank}, seed {seed}" for rank in (2, 4) for seed in (0, 1)),
        *(f"more, rank 2, seed {seed}" for seed in (0, 1)),
    ]
    teacher, first, second, *_, last = found
    assert first.spec.teacher["run"] == str(teacher.run) and second.needs == (teacher,)
    assert (first.spec.latent["atoms"], first.spec.student.head["rank"], first.spec.seed) == (8, 2, 0)
    assert {(t.spec.train.batch_size, t.spec.train.steps) for t in found} == {(16, 9)}
    assert last.spec.data["cache"] == str(second.run)  # of the same seed, and of the same value of the axis they share
    assert len({trial.folder for trial in found}) == len(found)


def test_what_is_trained_already_is_a_row(tmp_path):
    _, found = made(tmp_path, rows={"teacher": {"run": "somewhere"}, "di4c": {"runs": {"teacher.run": "teacher"}}})
    assert [trial.label for trial in found] == ["teacher", "di4c, seed 0", "di4c, seed 1"]
    assert found[1].spec.teacher["run"] == "somewhere" and found[0].spec is None
    assert jobs_of(found)[Job("train", ("di4c", 0))] == set() and Job("train", ("teacher", 0)) not in jobs_of(found)


@pytest.mark.parametrize(("changes", "told"), [
    ({"rows": {}}, "rows: none"),
    ({"rows": {"a": {"rnus": {}}}}, "rows.a.rnus: unknown key. Did you mean 'runs'"),
    ({"rows": {"a/b": {}}}, "rows.a/b: folders are called by the name"),
    ({"rows": {"a": {"runs": {"teacher.run": "b"}}}}, "rows.a.runs.teacher.run: no row 'b'"),
    ({"rows": {"a": {"runs": {"teacher.run": "b"}}, "b": {"runs": {"teacher.run": "a"}}}}, "is made of itself (a ← b ← a)"),
    ({"rows": {"a": {"run": "r", "set": {"seed": 1}}}}, "leave out set"),
    ({"rows": {"a": {"axes": {"seed": []}}}}, "rows.a.axes.seed: no values"),
    ({"rows": {"a": {"set": {"train.stepz": 1}}}}, "rows.a: "),
    ({"seeds": [0, 0]}, "seeds: expected different whole numbers"),
    ({"reference": "x"}, "reference: no row 'x'"),
    ({"rows": {"a": {"seeds": [1, 2]}, "b": {"runs": {"teacher.run": "a"}}}}, "not one run of 'a' fits seed 0"),
    ({"rows": {"a": {"spec": "text-smal-teacher"}}}, "Did you mean 'text-small-teacher'"),
])  # fmt: skip
def test_mistakes_in_a_grid_are_told_before_anything_is_run(tmp_path, changes, told):
    with pytest.raises(SpecError) as error:
        made(tmp_path, **changes)
    assert told in str(error.value) and str(error.value).startswith(str(tmp_path / "grid.yaml"))


def test_a_row_without_any_spec_is_told(tmp_path):
    with pytest.raises(SpecError, match="give --spec"):
        made(tmp_path, spec=None)


@pytest.mark.parametrize("file", sorted(GRIDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_grids_make_specs(file, tmp_path):
    grid = read_grid(file)
    found = trials(grid, None, file, tmp_path, ["data.path=somewhere"])
    assert {trial.row for trial in found} == set(grid.rows) and grid.about
    assert all(trial.spec.data["path"] == "somewhere" for trial in found if trial.spec is not None)


def test_jobs_wait_for_what_they_need_and_a_failure_stops_only_its_own(tmp_path):
    _, found = made(tmp_path)
    before, done, busy, most, lock = jobs_of(found), [], set(), [], threading.Lock()

    def do(job):
        with lock:
            assert before[job] <= set(done)
            busy.add(job)
            most.append(len(busy))
        time.sleep(0.01)
        with lock:
            busy.discard(job)
            done.append(job)
        return job != Job("train", ("di4c, rank 2", 1))

    failed = run_jobs(before, do, 3)
    assert set(failed) == {
        Job(kind, (row, 1)) for kind in ("train", "eval") for row in ("di4c, rank 2", "more, rank 2")
    }
    assert max(most) <= 3 and set(before) - set(done) == set(failed) - {Job("train", ("di4c, rank 2", 1))}


def test_a_child_is_asked_to_end_and_none_is_started_after(tmp_path):
    children, codes = Children(niceness=1), []
    log = tmp_path / "log.txt"
    sleeping = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    thread = threading.Thread(target=lambda: codes.append(children.run(sleeping, log)))
    thread.start()
    while "begun" not in (log.read_text() if log.exists() else "").splitlines():
        time.sleep(0.01)
    children.end()
    thread.join(30)
    assert codes == [-signal.SIGTERM] and children.run(sleeping, log) != 0


def test_a_failed_part_is_told_with_its_last_error(tmp_path):
    _, found = made(tmp_path, rows={"a": {}}, seeds=[0])
    said = []

    class Failing(Children):
        def run(self, words, log):
            log.write_text("fine\nerror: no such data\nbye\n")
            return 1

    runner = Runner({found[0].key: found[0]}, Failing(), lambda: None, say=said.append)
    assert not runner(Job("train", found[0].key)) and not runner(Job("eval", found[0].key))
    assert [line.partition(" (")[0] for line in said] == [
        f"a, seed 0: {kind} failed: error: no such data" for kind in ("train", "eval")
    ]


def write_eval(trial, values, std=0.01):
    """{steps: value} as tools/eval.py would store it."""
    student = trial.row != "teacher"
    rows = [
        {"model": "student" if student else "teacher", "steps": steps, "mixture_size": "inf" if student else None, "nfe": steps,
         "latency_ms_per_sample": 1.0, "metrics": {"tv": {"mean": value, "std": std}, "other": {"mean": None, "std": 0.0}}}
        for steps, value in values.items()
    ]  # fmt: skip
    (trial.folder / "eval").mkdir(parents=True)
    found = {
        "rows": rows,
        "reference_values": {"tv": {"mean": 0.01, "std": 0}},
        "higher_is_better": {"tv": False, "other": None},
    }
    (trial.folder / "eval/eval.json").write_text(json.dumps(found))


def test_means_and_spread_over_training_seeds_and_who_reaches_the_reference(tmp_path):
    rows = {"teacher": {"spec": "text-small-teacher", "seeds": [7]}, "di4c": {"runs": {"teacher.run": "teacher"}}}
    grid, found = made(tmp_path, rows=rows, judged="tv", reference="teacher")
    with pytest.raises(DataError, match="nothing is evaluated"):
        collected.write(collected.collect(found), grid, found, tmp_path)
    write_eval(found[0], {1: 0.4, 2: 0.3, 4: 0.2, 8: 0.1})
    write_eval(found[1], {1: 0.30, 2: 0.25})
    partly = collected.collect(found)
    assert [len(row["metrics"]["tv"]["seeds"]) for row in partly.rows] == [1] * 6 and partly.rows[-1]["metrics"]["tv"][
        "std"
    ] == 0
    write_eval(found[2], {1: 0.32, 2: 0.23}, std=0.03)
    everything = collected.collect(found)
    row = next(row for row in everything.rows if (row["model"], row["steps"]) == ("di4c", 1))["metrics"]["tv"]
    assert row["mean"] == pytest.approx(0.31) and row["std"] == pytest.approx(0.02 / 2**0.5)
    assert row["sampling_std"] == pytest.approx((0.0005) ** 0.5) and row["seeds"] == {0: 0.30, 1: 0.32}
    said = {(c["steps"], c["reference_steps"]): (round(c["difference"], 9), c["reached"])
            for c in collected.reached(everything, "tv", "teacher")}  # fmt: skip
    assert said == {(1, 2): (0.01, True), (1, 4): (0.11, False), (2, 4): (0.04, False), (2, 8): (0.14, False)}
    text = collected.write(everything, grid, found, tmp_path)
    assert (
        "| di4c | 0.310 ± 0.014 | 0.240 ± 0.014 |  |  |" in text and "di4c at 1 against teacher at 2: +0.0100" in text
    )
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored["judged"] == "tv" and stored["specs"]["di4c, seed 1"]["seed"] == 1 and len(stored["runs"]) == 3
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG") and (
        tmp_path / "ablation.md"
    ).read_text() == text
    with pytest.raises(DataError, match="no metric 'ngram_tv' was measured"):
        collected.write(everything, made(tmp_path)[0], found, tmp_path)
