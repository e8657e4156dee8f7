"""The small text specs, from .txt files to a stored verdict, at tiny size and through the tools."""

import json
from pathlib import Path

import pytest

import di4c
from di4c.config.check import check
from di4c.config.registry import Registry
from di4c.config.spec import read_spec
from tests.forked import run

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "tools/specs"
NAMES = ["text-small-teacher", "text-small-student", "text-small-one-component", "text-small-sdtt"]
PROPOSED = "text-small-posterior"
TINY = [
    "data.path=text", "train.steps=2", "train.batch_size=4", "train.schedule.warmup=0", "train.checkpoint_every=0",
    "train.diagnostics_every=2", "eval.samples=8", "eval.batch_size=4", "eval.seeds=2", "eval.steps=[2,4]",
]  # fmt: skip
SENTENCES = "the state of the union is strong and our people ask this house for work and peace. "


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with text/, some English."""
    (tmp_path / "text").mkdir()
    for number in range(3):
        (tmp_path / f"text/{number}.txt").write_text(SENTENCES[7 * number :] * 60)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DI4C_CACHE", str(tmp_path / "cache"))
    return tmp_path


def tool(name, *arguments):
    done = run([ROOT / f"tools/{name}.py", *arguments])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_teacher_student_evaluation_and_verdict(here):
    """The chain of README and specs,; the report shows the samples as text."""
    words = ["chain", "text-small", "--control", *(word for override in TINY for word in ("--set", override))]
    assert "mutual_information_nats" in tool(*words)
    runs = here / "runs/text-small-0"
    stored = json.loads((runs / "verdict.json").read_text())
    models = {(row["model"], row["mixture_size"]) for row in stored["rows"]}
    assert models == {("teacher", None), ("student", "inf"), ("student", "product"), ("one-component", "inf")}
    assert stored["verdict"]["at"][0]["judged"]["teacher"] > 0
    page = (runs / "report-control/report.html").read_text()
    shown = (runs / "report-control/grids/student-inf-2.txt").read_text().splitlines()[1]
    assert shown.strip() and shown.strip() in page
    tool("chain", "--collect", runs, "--out", here / "seeds.json")
    (collected,) = json.loads((here / "seeds.json").read_text())["runs"]
    assert collected["verdict"] == stored["verdict"] and (collected["system"], collected["seed"]) == ("text-small", 0)
    assert set(collected["seconds"]) == {"teacher", "student", "one-component", "report-control"}
    assert all(part["wall"] > 0 and part["cpu"] > 0 for part in collected["seconds"].values())


def test_matching_goes_on_from_the_student(here):
    """A critic alone for a step, then both; what comes out is a student like any other, without its critic."""
    settings = [word for override in TINY for word in ("--set", override)]
    for name in ("text-small-teacher", "text-small-student"):
        tool("train", "--spec", SPECS / f"{name}.yaml", *settings)
    more = ["--set", "train.steps=3", "--set", "objective.critic.warmup=1"]
    said = tool("train", "--spec", SPECS / "text-small-matching.yaml", *settings, *more)
    assert "teacher_sample_entropy_nats" in said
    model = di4c.load(here / "runs/text-small-matching")
    assert not any("critic" in name for name in model.student.state_dict())
    assert model.sample(3, steps=2, seed=0).shape == (3, 16)


def test_sdtt_then_two_rounds_of_di4c(here):
    """MDLM teacher, SDTT over its three rounds, Di4C on its student, Di4C² on the mixture; what comes out samples text."""

    def train(part, *more):
        words = [word for override in [*TINY, *more] for word in ("--set", override)]
        return tool("train", "--spec", SPECS / f"text-small-{part}.yaml", *words)

    train("teacher")
    assert "round 2  sampling_steps 4" in train(
        "sdtt", "objective.steps_per_round=1", "train.steps=3", "train.diagnostics_every=3"
    )
    assert "mutual_information_nats" in train("sdtt-di4c2")
    run = di4c.load("runs/text-small-sdtt-di4c2", device="cpu")
    assert len(run.data.decode(run.sample(2, steps=2, seed=0))[0]) == 16
    for number, teacher in ((1, "runs/text-small-sdtt"), (2, "runs/text-small-sdtt-di4c2/round-1")):
        spec = di4c.load(f"runs/text-small-sdtt-di4c2/round-{number}", device="cpu").spec
        assert spec.teacher["name"] == "averaged" and spec.teacher["run"] == teacher


def test_the_specs_agree():
    """All see the same text and process; the students' teacher is the first spec's run; the comparison differs in M alone."""
    teacher, student, one, sdtt = (read_spec(SPECS / f"{name}.yaml") for name in NAMES)
    for other in (student, one, sdtt):
        assert other.data == teacher.data and other.process == teacher.process
        assert other.teacher["run"] == str(teacher.train.run)
    proposed = read_spec(SPECS / f"{PROPOSED}.yaml")
    assert (proposed.data, proposed.process, proposed.teacher) == (student.data, student.process, student.teacher)
    assert {**proposed.objective, "components": 32} == student.objective | {"proposal": proposed.objective["proposal"]}
    rounds = read_spec(SPECS / "text-small-sdtt-di4c2.yaml")
    assert (rounds.data, rounds.process, rounds.objective) == (student.data, student.process, student.objective)
    assert rounds.student == student.student and rounds.teacher["run"] == str(sdtt.train.run)
    assert teacher.data["length"] <= 128
    assert student.objective["components"] == student.latent["atoms"] and one.objective["components"] == 1
    assert {**student.objective, "components": 1} == one.objective and student.student == one.student
    assert {**vars(student.train), "run": one.train.run} == vars(one.train)


@pytest.mark.parametrize(("student", "like", "examples"), [
    ("text-small-full-noise", "text-small-student", 512), ("letters64-student", "text-small-full-noise", 2048),
])  # fmt: skip
def test_students_with_data_at_full_noise_differ_in_what_that_is_about(student, like, examples):
    """Many examples a step at t = 1 against every atom, before and beside terms of fewer of them."""
    spec, other = read_spec(SPECS / f"{student}.yaml"), read_spec(SPECS / f"{like}.yaml")
    teacher = read_spec(SPECS / f"{student.replace('full-noise', 'teacher').replace('student', 'teacher')}.yaml")
    assert (
        spec.teacher["run"] == str(teacher.train.run) and spec.data == teacher.data and spec.process == teacher.process
    )
    term = spec.objective["full_noise"]
    assert term["ratio"] * spec.train.batch_size == examples and 0 < term["alone"] < spec.train.steps
    assert spec.objective["components"] < spec.latent["atoms"] == 128
    for key in ("teacher_step", "sampler", "data", "consistency"):
        assert spec.objective[key] == other.objective[key]
    check(spec, Registry.default([]))
