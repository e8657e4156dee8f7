"""Rounds on real digits at tiny size: killed and continued, ended by the rule, on one rank and on two, loaded and sampled."""

import json
import shutil

import pytest
import torch

import di4c
from di4c.config.check import check
from di4c.config.pipeline import build_pipeline, planned_specs
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.errors import CheckpointError, RegistryError, SpecError
from di4c.evaluation.comparison import runs_in
from di4c.testing import check_pipeline
from di4c_plugins.pipelines.round_record import StopRule
from di4c_plugins.pipelines.rounds import Rounds
from tests.config.specs import DISTILL, changed
from tests.engine.launching import exported, launch, losses, relative
from tests.evaluation.conftest import EVAL, PRETRAIN, write_run

STEPS = 3


def spec(folder, teacher, most=2, gain=-100.0, stop=True, **changes) -> dict:
    """Rounds of three steps; a gain of −100 is always reached."""
    rule = {"metric": "frechet_distance", "steps": 1, "min_gain": gain}
    train = {
        "run": str(folder),
        "steps": STEPS,
        "checkpoint_every": 2,
        "log_every": 1,
        "optimizer": {"lr": 1e-2, "betas": [0.9, 0.99], "weight_decay": 0.0},
    }
    return changed(DISTILL, **changes) | {
        "teacher": {"name": "denoiser", "run": str(teacher)},
        "latent": {"name": "categorical", "atoms": 2},
        "train": DISTILL["train"] | train,
        "eval": EVAL | {"metrics": ["frechet"], "samples": 40, "batch_size": 20},
        "pipeline": {"name": "rounds", "max": most, "later": {"teacher": "averaged"}}
        | ({"stop": rule} if stop else {}),
    }


def with_pipeline(values: dict, **changes) -> dict:
    return values | {"pipeline": values["pipeline"] | changes}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("teacher") / "run", PRETRAIN)


@pytest.fixture(scope="module")
def done(teacher, tmp_path_factory):
    """{name: run folder}, and the results of the jobs, of one process; see the tests below."""
    top = tmp_path_factory.mktemp("rounds")
    whole, killed, stopped, plain = (top / name for name in ("whole", "killed", "stopped", "plain"))
    jobs = [{"spec": spec(whole, teacher)}]
    moments = ("writing rounds.json 1", "signal round-1", "measuring round-1", "writing rounds.json 2", "ending", None)
    jobs += [{"spec": spec(killed, teacher), "resume": i > 0, "die": die} for i, die in enumerate(moments)]
    jobs += [{"spec": spec(stopped, teacher, gain=100.0)}, {"spec": spec(stopped, teacher, gain=100.0), "resume": True}]
    jobs += [{"spec": spec(plain, teacher, stop=False)}]
    jobs += [
        {"spec": with_pipeline(spec(top / "unknown", teacher), stop={"metric": "fid", "steps": 1, "min_gain": 0.0})}
    ]
    results, text = launch(jobs, module="tests.pipeline.worker")
    return {"top": top, "results": results, "text": text}


def test_every_round_starts_from_the_last_ones_student(done):
    whole = done["top"] / "whole"
    assert done["results"][0] == {"step": 2 * STEPS, "finished": True}
    second = json.loads((whole / "round-2/export/config.json").read_text())
    # its network's; the averaged teacher is not needed to load it
    assert second["spec"]["teacher"]["name"] == "denoiser"
    assert Spec.from_dict(second["spec"]).seed != Spec.from_dict(spec(whole, "x")).seed
    stored = json.loads((whole / "rounds.json").read_text())
    assert [entry["number"] for entry in stored["rounds"]] == [0, 1, 2] and stored["reason"].startswith("pipeline.max")
    assert len(losses(whole / "round-2")) == STEPS
    best = min(stored["rounds"][1:], key=lambda entry: entry["values"]["frechet_distance"]["mean"])
    assert stored["chosen"] == best["number"]
    chosen, top = exported(whole / best["run"]), exported(whole)
    assert all(torch.equal(chosen[key], top[key]) for key in top)


def test_a_run_stopped_five_times_ends_the_same(done):
    killed = {"killed": True}
    assert done["results"][1:6] == [killed, {"step": 1, "finished": False}, killed, killed, killed]
    assert done["results"][6] == {"step": 2 * STEPS, "finished": True}
    whole, killed = done["top"] / "whole", done["top"] / "killed"
    for name in ("round-1", "round-2", "."):
        a, b = exported(whole / name), exported(killed / name)
        assert all(torch.equal(a[key], b[key]) for key in a)
    ours, theirs = (json.loads((folder / "rounds.json").read_text())["rounds"] for folder in (whole, killed))
    assert [entry["values"] for entry in ours] == [entry["values"] for entry in theirs]


def test_the_rule_ends_the_rounds_and_says_why(done):
    folder = done["top"] / "stopped"
    stored = json.loads((folder / "rounds.json").read_text())
    assert stored["over"] and stored["chosen"] == 1 and "less than 10000.00%" in stored["reason"]
    assert not (folder / "round-2").exists()
    assert done["results"][7]["finished"] and done["results"][8]["finished"]  # resumed, it stays ended


def test_without_a_rule_nothing_is_measured_and_the_last_round_is_taken(done):
    stored = json.loads((done["top"] / "plain/rounds.json").read_text())
    assert stored["chosen"] == 2 and not (done["top"] / "plain/measured").exists()
    assert stored["rounds"][0]["values"].keys() >= {"loss", "mutual_information_nats"}


def test_a_metric_that_is_not_measured_is_told_before_anything_is_trained(done):
    assert "pipeline.stop.metric: no 'fid'; eval.metrics report frechet_distance" in done["results"][-1]["error"]
    assert not (done["top"] / "unknown/round-1").exists()


def test_the_folder_loads_like_a_run(done, teacher):
    model = di4c.load(done["top"] / "whole", device="cpu")
    assert model.sample(3, 2, seed=0).shape == (3, 64)
    first = di4c.load(teacher, device="cpu")
    assert model.teacher().digest == first.digest  # the first teacher, not the averaged one
    second = di4c.load(done["top"] / "whole/round-2", device="cpu")
    assert second.teacher().digest != first.digest
    assert second.teacher().sample(2, 2, seed=0).shape == (2, 64)


def test_every_round_can_be_compared(done, teacher):
    folder = done["top"] / "whole"
    assert [pair.partition("=")[0] for pair in runs_in(folder)] == ["round-1", "round-2"]
    with pytest.raises(SpecError, match="--every-run: .* holds none"):
        runs_in(teacher)


def test_a_folder_without_a_finished_whole_names_its_rounds(done, tmp_path):
    shutil.copytree(done["top"] / "whole", tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole/export")
    with pytest.raises(
        CheckpointError, match="its runs are not over; continue them with --resume, or name one: .*round-1"
    ):
        di4c.load(tmp_path / "whole")


def test_two_ranks_train_the_same_rounds(done, teacher, tmp_path):
    results, _ = launch([{"spec": spec(tmp_path / "two", teacher)}], ranks=2, module="tests.pipeline.worker")
    assert results[0]["finished"]
    for name in ("round-1", "round-2"):
        assert relative(losses(tmp_path / "two" / name), losses(done["top"] / "whole" / name)) < 1e-4


@pytest.mark.parametrize("stop", [None, StopRule("fd", -5.0, steps=2), StopRule("fd", 0.2, higher_is_better=True)])
def test_killed_at_any_moment_the_rounds_end_the_same(stop, tmp_path):
    whole = {key: value for key, value in spec(tmp_path, "runs/x").items() if key != "pipeline"}
    check_pipeline(
        Rounds(max=3, later={"teacher": "averaged", "train": {"steps": 2}}, stop=stop),
        whole,
        {"fd": False, "guard": None},
    )


def checked(values: dict) -> None:
    check(Spec.from_dict(values), Registry.default())


def test_mistakes_are_told_before_anything_is_trained(tmp_path, teacher):
    good = spec(tmp_path, teacher)
    rule = good["pipeline"]["stop"]
    with pytest.raises(SpecError, match="pipeline: rounds are only of task distill"):
        checked(good | {"task": "pretrain", "student": None, "latent": None, "objective": PRETRAIN["objective"]})
    with pytest.raises(SpecError, match="pipeline.stop.steps: needs an eval section"):
        checked({key: value for key, value in good.items() if key != "eval"})
    with pytest.raises(SpecError, match="pipeline: students with student.lora"):
        checked(good | {"student": {"head": "token", "lora": {"rank": 2, "alpha": 2, "targets": ["qkv"]}}})
    with pytest.raises(SpecError, match="pipeline.max: expected a number of rounds ≥ 1"):
        checked(with_pipeline(good, max=0))
    with pytest.raises(SpecError, match="pipeline.stop.steps: expected a number of sampling steps ≥ 1"):
        checked(with_pipeline(good, stop=rule | {"steps": 0}))
    with pytest.raises(RegistryError, match="pipeline.stop .* has no option 'metrik'. Did you mean 'metric'"):
        checked(with_pipeline(good, stop={"metrik": "x", "min_gain": 0.0}))
    with pytest.raises(RegistryError, match="has no option 'mx'. Did you mean 'max'"):
        checked(with_pipeline(good, mx=3))


@pytest.mark.parametrize(("later", "told"), [
    ({"data": "digits"}, "pipeline.later.data: rounds may differ in"),
    ({"train": {"stepz": 3}}, "round-2: train.stepz: unknown key. Did you mean 'steps'"),
    ({"teacher": {"name": "averaged", "run": "x"}}, "pipeline.later.teacher.run: left out"),
    ({"teacher": None}, "pipeline.later.teacher: expected the teacher that a student becomes"),
    ({"teacher": "averagd"}, "round-2: teacher.name: no teacher named 'averagd'. Did you mean 'averaged'"),
    ({"teacher": {"name": "averaged", "componentz": 3}}, "has no option 'componentz'. Did you mean 'components'"),
])  # fmt: skip
def test_mistakes_of_later_rounds_are_told_before_anything_is_trained(tmp_path, teacher, later, told):
    with pytest.raises((SpecError, RegistryError), match=told):
        checked(with_pipeline(spec(tmp_path, teacher), later={"teacher": "averaged"} | later))


def test_the_former_section_is_told_where_it_went(tmp_path):
    with pytest.raises(SpecError, match=r"rounds: no section any more; use pipeline: {name: rounds"):
        Spec.from_dict(spec(tmp_path, "runs/x") | {"rounds": {"max": 2, "teacher": "averaged"}})


def test_later_rounds_differ_as_said(tmp_path):
    values = spec(tmp_path, "runs/x") | {"teacher": {"name": "averaged", "run": "runs/x", "components": 2}}
    whole = Spec.from_dict(with_pipeline(values, later={"teacher": "averaged", "train": {"optimizer": {"lr": 1e-4}}}))
    first, second = planned_specs(whole, build_pipeline(whole, Registry.default())).values()
    assert first.train.optimizer.lr == 1e-2 and second.train.optimizer.lr == 1e-4
    assert first.teacher == whole.teacher and second.teacher == {"name": "averaged", "run": f"{tmp_path}/round-1"}
    assert first.train.run == tmp_path / "round-1" and first.pipeline is None and first.seed != second.seed
    assert Spec.from_dict(whole.to_dict()) == whole
