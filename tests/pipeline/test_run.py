"""A pipeline of a plugin file, and what the framework refuses of one."""

import json

import pytest
import torch

import di4c
from di4c.config.check import check
from di4c.config.registry import Registry
from di4c.config.resuming import is_trained
from di4c.config.spec import Spec
from di4c.errors import CheckpointError, RegistryError, SpecError
from di4c.evaluation.comparison import runs_in
from di4c.pipeline.run import run
from tests.config.specs import DISTILL, changed
from tests.engine.launching import launch
from tests.evaluation.conftest import EVAL, PRETRAIN

PLUGIN = '''
from di4c.contracts import Pipeline, merged
from di4c.errors import SpecError

DI4C_PLUGINS = {"pipelines": {"sweep": "Sweep"}}


class Sweep(Pipeline):
    """Trains with each learning rate and takes the one with the lowest loss."""

    def __init__(self, *, rates: list[float], prefix: str = "lr-"):
        self.rates, self.prefix = rates, prefix

    def planned(self, spec):
        changes = {f"{self.prefix}{rate:g}": {"train": {"optimizer": {"lr": rate}}} for rate in self.rates}
        return {name: merged(spec, change) for name, change in changes.items()}

    def run(self, runs):
        losses = {}
        for name, spec in self.planned(runs.spec).items():
            runs.train(name, spec)
            losses[name] = runs.training_values(name)["loss"]
        best = min(losses, key=losses.get)
        shown = runs.on_rank_zero(lambda: sorted(path.name for path in runs.folder.glob("lr-*")))
        runs.write("sweep.txt", f"{best} of {shown}, {runs.evaluate(best, 1)['frechet_distance'].higher_is_better}")
        return best
'''


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "sweep.py").write_text(PLUGIN)
    values = changed(PRETRAIN, train__steps=2, train__run=str(tmp_path / "run"))
    eval_ = EVAL | {"metrics": ["frechet"], "samples": 40, "batch_size": 20}
    return values | {
        "eval": eval_,
        "plugins": [str(tmp_path / "sweep.py")],
        "pipeline": {"name": "sweep", "rates": [1e-2, 1e-9]},
    }


def checked(values: dict) -> None:
    check(Spec.from_dict(values), Registry.default(values["plugins"]))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_plugins_pipeline_is_run(spec, tmp_path, ranks):
    results, text = launch(
        [{"spec": spec}, {"spec": spec, "resume": True}, {"spec": spec}], ranks, module="tests.pipeline.worker"
    )
    assert results[:2] == [{"step": 4, "finished": True}] * 2, text
    assert "already holds a run; add --resume" in results[2]["error"]
    assert (tmp_path / "run/sweep.txt").read_text() == "lr-0.01 of ['lr-0.01', 'lr-1e-09'], False"
    assert di4c.load(tmp_path / "run", device="cpu").digest == di4c.load(tmp_path / "run/lr-0.01", device="cpu").digest
    assert [pair.partition("=")[0] for pair in runs_in(tmp_path / "run")] == ["lr-0.01", "lr-1e-09"]
    sessions = json.loads((tmp_path / "run/lr-0.01/run.json").read_text())["sessions"]
    assert len(sessions) == 1 and text.count("the result is lr-0.01's") == 2  # what is trained is not trained again
    first = Spec.from_dict(di4c.load(tmp_path / "run/lr-0.01", device="cpu").spec.to_dict())
    other = [changed(first.to_dict(), train__steps=3), changed(first.to_dict(), seed=1)]
    assert is_trained(first) and not any(is_trained(Spec.from_dict(values)) for values in other)


@pytest.mark.parametrize(("pipeline", "told"), [
    ({"name": "swep"}, "pipeline.name: no pipeline named 'swep'. Did you mean 'sweep'"),
    ({"name": "sweep", "rats": []}, "pipeline: 'sweep' .* has no option 'rats'. Did you mean 'rates'"),
    ({"name": "sweep", "rates": "all"}, "pipeline.rates: expected a list of numbers, found 'all'"),
    ({"name": "sweep", "rates": [-1.0]}, "lr--1: train.optimizer.lr: expected a finite number > 0"),
    ({"name": "sweep", "rates": [1.0], "prefix": "a/"}, "a/1: a run is called by the name of its folder"),
    ({"name": "token"}, "no pipeline named 'token' .*names a head"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_is_trained(spec, tmp_path, pipeline, told):
    with pytest.raises((SpecError, RegistryError), match=told):
        checked(spec | {"pipeline": pipeline})
    assert not (tmp_path / "run").exists()


def test_a_mistyped_option_is_told_before_a_teacher_that_is_not_there(tmp_path):
    values = changed(
        DISTILL, train__run=str(tmp_path / "run"), teacher__run=str(tmp_path / "nothing"), objective__tragets=2
    )
    with pytest.raises(RegistryError, match="no option 'tragets'. Did you mean 'targets'"):
        run(Spec.from_dict(values), device=torch.device("cpu"), resume=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_finished_whole_names_its_runs_in_order(tmp_path):
    for name in ("part-10", "part-2"):
        (tmp_path / name / "export").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="its runs are not over; .*part-2, .*part-10"):
        di4c.load(tmp_path)
