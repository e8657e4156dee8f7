"""Rounds on real digits at tiny size: killed and continued, ended by the rule, on one rank and on two, loaded and sampled."""

import json
import shutil

import pytest
import torch

import di4c
from di4c.config.spec import Spec
from di4c.errors import CheckpointError, SpecError
from di4c.evaluation.comparison import rounds_of
from tests.config.specs import DISTILL, changed
from tests.engine.launching import exported, launch, losses, relative
from tests.evaluation.conftest import EVAL, PRETRAIN, write_run

STEPS = 3


def spec(folder, teacher, most=2, gain=-100.0, stop=True, **changes) -> dict:
    """Rounds of three steps; a gain of −100 is always reached."""
    rule = {"metric": "frechet_distance", "steps": 1, "min_gain": gain}
    train = {"run": str(folder), "steps": STEPS, "checkpoint_every": 2, "log_every": 1, "optimizer": {
        "lr": 1e-2, "betas": [0.9, 0.99], "weight_decay": 0.0}}
    return changed(DISTILL, **changes) | {
        "teacher": {"name": "denoiser", "run": str(teacher)},
        "latent": {"name": "categorical", "atoms": 2},
        "train": DISTILL["train"] | train,
        "eval": EVAL | {"metrics": ["frechet"], "samples": 40, "batch_size": 20},
        "rounds": {"max": most, "teacher": "averaged"} | ({"stop": rule} if stop else {}),
    }


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("teacher") / "run", PRETRAIN)


@pytest.fixture(scope="module")
def done(teacher, tmp_path_factory):
    """{name: run folder}, and the results of the jobs, of one process; see the tests below."""
    top = tmp_path_factory.mktemp("rounds")
    whole, killed, stopped, plain = (top / name for name in ("whole", "killed", "stopped", "plain"))
    jobs = [{"spec": spec(whole, teacher)}]
    moments = ("noting 0", "measuring 1", "noting 2", "ending", None)
    jobs += [{"spec": spec(killed, teacher), "resume": i > 0, "die": die} for i, die in enumerate(moments)]
    jobs += [{"spec": spec(stopped, teacher, gain=100.0)}, {"spec": spec(stopped, teacher, gain=100.0), "resume": True}]
    jobs += [{"spec": spec(plain, teacher, stop=False)}]
    jobs += [{"spec": spec(top / "unknown", teacher) | {"rounds": {
        "max": 2, "teacher": "averaged", "stop": {"metric": "fid", "steps": 1, "min_gain": 0.0}}}}]
    results, text = launch(jobs, module="tests.rounds.worker")
    return {"top": top, "results": results, "text": text}


def test_every_round_starts_from_the_last_ones_student(done):
    whole = done["top"] / "whole"
    assert done["results"][0] == {"step": 2 * STEPS, "finished": True}
    second = json.loads((whole / "round-2/export/config.json").read_text())
    assert second["spec"]["teacher"]["name"] == "denoiser"  # its network's; the averaged teacher is not needed to load it
    assert Spec.from_dict(second["spec"]).seed != Spec.from_dict(spec(whole, "x")).seed
    stored = json.loads((whole / "rounds.json").read_text())
    assert [entry["number"] for entry in stored["rounds"]] == [0, 1, 2] and stored["reason"].startswith("rounds.max")
    assert len(losses(whole / "round-2")) == STEPS
    best = min(stored["rounds"][1:], key=lambda entry: entry["values"]["frechet_distance"]["mean"])
    assert stored["chosen"] == best["number"]
    chosen, top = exported(whole / best["run"]), exported(whole)
    assert all(torch.equal(chosen[key], top[key]) for key in top)


def test_a_run_killed_four_times_ends_the_same(done):
    assert done["results"][1:5] == [{"killed": True}] * 4 and done["results"][5]["finished"]
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
    assert done["results"][6]["finished"] and done["results"][7]["finished"]  # resumed, it stays ended


def test_without_a_rule_nothing_is_measured_and_the_last_round_is_taken(done):
    stored = json.loads((done["top"] / "plain/rounds.json").read_text())
    assert stored["chosen"] == 2 and not (done["top"] / "plain/measured").exists()
    assert stored["rounds"][0]["values"].keys() >= {"loss", "mutual_information_nats"}


def test_a_metric_that_is_not_measured_is_told_before_anything_is_trained(done):
    assert "rounds.stop.metric: no 'fid'; eval.metrics report frechet_distance" in done["results"][-1]["error"]
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
    assert [pair.partition("=")[0] for pair in rounds_of(folder)] == ["round-1", "round-2"]
    with pytest.raises(SpecError, match="--rounds: .* has none"):
        rounds_of(teacher)


def test_a_folder_without_a_finished_whole_names_its_rounds(done, tmp_path):
    shutil.copytree(done["top"] / "whole", tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole/export")
    with pytest.raises(CheckpointError, match="its rounds are not over; continue them with --resume, or name one: .*round-1"):
        di4c.load(tmp_path / "whole")


def test_two_ranks_train_the_same_rounds(done, teacher, tmp_path):
    results, _ = launch([{"spec": spec(tmp_path / "two", teacher)}], ranks=2, module="tests.rounds.worker")
    assert results[0]["finished"]
    for name in ("round-1", "round-2"):
        assert relative(losses(tmp_path / "two" / name), losses(done["top"] / "whole" / name)) < 1e-4


def test_mistakes_are_told_when_the_spec_is_read(tmp_path):
    good = spec(tmp_path, "runs/x")
    with pytest.raises(SpecError, match="rounds: only of task distill"):
        Spec.from_dict(good | {"task": "pretrain", "student": None, "latent": None, "objective": PRETRAIN["objective"]})
    with pytest.raises(SpecError, match="rounds.stop.steps: needs an eval section"):
        Spec.from_dict({key: value for key, value in good.items() if key != "eval"})
    with pytest.raises(SpecError, match="rounds.later.data: rounds may differ in"):
        Spec.from_dict(good | {"rounds": good["rounds"] | {"later": {"data": "digits"}}})
    with pytest.raises(SpecError, match="round 2: train.stepz: unknown key"):
        Spec.from_dict(good | {"rounds": good["rounds"] | {"later": {"train": {"stepz": 3}}}})
    with pytest.raises(SpecError, match="rounds.teacher.run"):
        Spec.from_dict(good | {"rounds": good["rounds"] | {"teacher": {"name": "averaged", "run": "x"}}})
    later = Spec.from_dict(good | {"rounds": good["rounds"] | {"later": {"train": {"optimizer": {"lr": 1e-4}}}}})
    assert later.round(1).train.optimizer.lr == 1e-2 and later.round(2).train.optimizer.lr == 1e-4
    assert later.round(2).teacher == {"name": "averaged", "run": f"{tmp_path}/round-1"}
    assert Spec.from_dict(later.to_dict()) == later
