import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

from di4c.errors import DataError, SpecError
from di4c.evaluation import sweep
from di4c.evaluation.comparison import compare, entrants, load_also, settings_of, sweep_of
from di4c.evaluation.loaded import load
from di4c.ranks import Ranks
from tests.forked import run

TOOLS = Path(__file__).parents[2] / "tools"


def run_tool(name, *arguments):
    return run([TOOLS / name, *arguments])


def test_a_run_is_compared_with_its_teacher_and_the_result_is_complete(runs, tmp_path, monkeypatch):
    student = load(runs["student"], device="cpu")
    settings = settings_of(student.spec)
    also = {"other": load(runs["teacher"], device="cpu")}

    def go():
        return compare(student, settings, tmp_path, also=also, ranks=Ranks(), say=lambda *told: None)

    outcome = go()
    keys = [(row["model"], row["mixture_size"]) for row in outcome.rows if row["steps"] == 1]
    assert keys == [("teacher", None), ("student", "inf"), ("student", 2), ("student", "product"), ("other", None)]
    values = json.loads((tmp_path / "eval.json").read_text())
    assert list(values)[:1] == ["rows"] and {"rows", "spec", "commit", "reference_values", "settings"} <= set(values)
    assert values["rows"] == outcome.rows
    assert set(outcome.rows[0]["metrics"]) == {"covariance_error", "pair_tv", "frechet_distance", "nll_nats_per_token"}
    assert set(values["reference_values"]) == {"covariance_error", "pair_tv", "frechet_distance"}
    made = {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and "cells" not in path.parts
    }
    assert {"eval.json", "eval.csv", "eval.png", "report.html", "grids/data.png", "grids/student-inf-2.png"} <= made
    teacher, same = ([r["metrics"] for r in outcome.rows if r["model"] == name] for name in ("teacher", "other"))
    assert teacher == same  # one model under two names

    def nothing_left(*arguments, **options):
        raise AssertionError("sampled again")

    monkeypatch.setattr(sweep.Recipe, "batches", nothing_left)
    assert go().rows == outcome.rows


def test_changed_plugins_are_measured_anew(runs, tmp_path):
    """What models and metrics are made of is part of what a cell is known by."""
    student, plugin, codes = load(runs["student"], device="cpu"), tmp_path / "mine.py", []
    assert "plugins" not in entrants(student, ["inf"], {}, alone=True)[0].identity
    student.spec = dataclasses.replace(student.spec, plugins=[str(plugin)])
    for text in ("x = 1", "x = 2"):
        plugin.write_text(text + "\nDI4C_PLUGINS = {}")
        found = sweep_of(student, settings_of(student.spec), tmp_path / "cells", Ranks()).code
        assert found["plugins"] == entrants(student, ["inf"], {}, alone=True)[0].identity["plugins"]
        codes.append(found)
    assert codes[0] != codes[1]


def test_a_pretrained_teacher_is_measured_alone(runs):
    teacher = load(runs["teacher"], device="cpu")
    assert [(e.name, e.mixture_size) for e in entrants(teacher, ["inf", 4], {})] == [("teacher", None)]


def test_a_student_alone_is_measured_without_its_teacher(runs):
    student = load(runs["student"], device="cpu")
    found = entrants(student, ["inf", "product"], {"teacher": student}, alone=True)
    assert [(e.name, e.mixture_size) for e in found] == [("student", "inf"), ("student", "product"), ("teacher", "inf")]


def test_settings_from_the_command_line_go_before_the_spec(runs):
    spec = load(runs["student"], device="cpu").spec
    settings = settings_of(spec, steps=[3], mixture_sizes=["1", "inf"], metrics=["nll", "entropy"], samples=None)
    assert (settings.steps, settings.mixture_sizes, settings.samples) == ([3], [1, "inf"], 24)
    assert settings.metrics == [{"name": "nll", "num_examples": 8, "lambda_draws": 4}, {"name": "entropy"}]
    with pytest.raises(SpecError, match="--mixture-sizes"):
        settings_of(spec, mixture_sizes=["0"])


def test_other_data_cannot_be_compared(runs, tmp_path):
    copy = shutil.copytree(runs["teacher"], tmp_path / "copy")
    for file in (copy / "spec.yaml", copy / "export" / "config.json"):
        text = yaml.safe_load(file.read_text())
        text.get("spec", text)["data"] = {"name": "digits", "split_seed": 1}
        file.write_text(json.dumps(text))
    with pytest.raises(DataError, match="other data"):
        entrants(load(runs["student"], device="cpu"), ["inf"], {"foreign": load(copy, device="cpu")})


@pytest.mark.parametrize("pair", ["runs/x", "=runs/x", "name="])
def test_also_wants_a_name_and_a_run(pair):
    with pytest.raises(SpecError, match="NAME=RUN"):
        load_also([pair], "cpu")


def test_also_must_not_take_a_name_twice(runs):
    student = load(runs["student"], device="cpu")
    with pytest.raises(SpecError, match="taken"):
        entrants(student, ["inf"], {"teacher": student})


def test_the_tools(runs, tmp_path):
    done = run_tool(
        "sample.py", "--run", runs["student"], "--steps", 2, "--num", 9, "--label", 3, "--out", tmp_path / "a" / "x.png"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "x.png").stat().st_size > 0
    done = run_tool("eval.py", "--run", runs["student"], "--out", tmp_path / "b", "--steps", "1", "--mixture-sizes", "inf",
                    "--seeds", 1, "--metrics", "entropy", "--device", "cpu", "--set", "eval.sampler=mdlm-ancestral")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "unique" in done.stdout and "report.html" in done.stdout
    assert json.loads((tmp_path / "b/eval.json").read_text())["settings"]["sampler"] == {"name": "mdlm-ancestral"}


@pytest.mark.parametrize("tool", ["sample.py", "eval.py"])
def test_a_missing_run_is_one_message(tool, tmp_path):
    done = run_tool(tool, "--run", tmp_path / "no", "--steps", 1, "--out", tmp_path / "x")
    assert done.returncode != 0
    assert "no such folder" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()
