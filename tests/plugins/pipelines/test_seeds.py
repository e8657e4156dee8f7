"""The same spec over several training seeds, on real digits at tiny size."""

import csv
import json
import statistics

import pytest
import torch

from di4c.config.check import check
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.errors import SpecError
from di4c.testing import check_pipeline
from di4c_plugins.pipelines.seeds import Seeds
from tests.config.specs import changed
from tests.engine.launching import exported, launch
from tests.evaluation.conftest import EVAL, PRETRAIN

SPEC = changed(PRETRAIN, train__steps=2) | {
    "eval": EVAL | {"metrics": ["frechet"], "samples": 40, "batch_size": 20, "steps": [1, 2]},
    "pipeline": {"name": "seeds", "seeds": [3, 5]},
}


def test_killed_at_any_moment_it_ends_the_same():
    spec = {key: value for key, value in SPEC.items() if key != "pipeline"}
    check_pipeline(Seeds(seeds=[3, 5, 4]), spec, {"frechet_distance": False})


def test_seeds_need_to_differ_and_an_eval_section():
    with pytest.raises(SpecError, match="pipeline.seeds: expected different whole numbers"):
        Seeds(seeds=[1, 1])
    with pytest.raises(SpecError, match="seeds are compared by an eval section"):
        check(Spec.from_dict({key: value for key, value in SPEC.items() if key != "eval"}), Registry.default())


def test_every_metric_has_its_mean_and_range_over_training_seeds(tmp_path):
    jobs = [{"spec": changed(SPEC, train__run=str(tmp_path / "run")), "die": "measuring seed-5"}]
    jobs += [{"spec": jobs[0]["spec"], "resume": True}]
    results, text = launch(jobs, module="tests.pipeline.worker")
    assert results == [{"killed": True}, {"step": 4, "finished": True}], text
    rows = list(csv.DictReader((tmp_path / "run/seeds.csv").read_text().splitlines()))
    assert [(row["steps"], row["metric"]) for row in rows] == [("1", "frechet_distance"), ("2", "frechet_distance")]
    for row in rows:
        values = [float(row["seed-3"]), float(row["seed-5"])]
        assert values[0] != values[1] and float(row["mean"]) == pytest.approx(statistics.fmean(values))
        assert [float(row["low"]), float(row["high"])] == sorted(values)
    assert json.loads((tmp_path / "run/seeds.json").read_text())["seeds"] == [3, 5]
    first, second, whole = (exported(tmp_path / "run" / name) for name in ("seed-3", "seed-5", "."))
    assert all(torch.equal(first[key], whole[key]) for key in first)
    assert any(not torch.equal(first[key], second[key]) for key in first)
