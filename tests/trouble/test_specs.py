"""Strings, numbers and names of a spec, from where they are written to the run folder, the export and --resume."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import di4c
from di4c.config.build import build
from di4c.config.check import check
from di4c.config.coerce import coerce
from di4c.config.registry import Registry
from di4c.config.spec import Spec, read_spec, save_spec
from di4c.engine import run_folder
from di4c.engine.run_folder import RunFolder, recorded_spec
from di4c.errors import Di4CError, SpecError
from di4c.yaml_text import MISSING
from tests.config.specs import changed
from tests.engine.launching import launch
from tests.evaluation.conftest import PRETRAIN, distill, write_run

AWKWARD = r"1e3 #${seed} \${x}: 'é"


TEXTS = st.text(max_size=8) | st.text(st.characters(), max_size=4) | st.text("\\${}.a?", max_size=8)


@pytest.mark.parametrize("examples", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_trouble_16_what_a_run_records_reads_back_equal(tmp_path_factory, monkeypatch, examples):
    monkeypatch.setattr(run_folder, "environment", dict)

    @settings(max_examples=examples, deadline=None)
    @given(st.dictionaries(st.text(max_size=5), TEXTS, max_size=3), st.text(min_size=1))
    def reads_back_equal(texts: dict, judge: str) -> None:
        if MISSING in {*texts.values(), judge}:
            return
        values = changed(PRETRAIN, eval__judge=judge) | {"deepspeed": {"note": texts, "1e3": "1e3"}}
        spec, folder = Spec.from_dict(values), tmp_path_factory.mktemp("run")
        save_spec(spec, folder / "saved.yaml")
        assert read_spec(folder / "saved.yaml") == spec == Spec.from_dict(json.loads(json.dumps(spec.to_dict())))
        for resume in (False, True):
            held = RunFolder(folder / "run", resume=resume)
            assert held.record_start(spec.to_dict(), {}) == []
            held.close()
        assert recorded_spec(folder / "run") == spec.to_dict() and read_spec(folder / "run/spec.yaml") == spec

    reads_back_equal()


def test_trouble_16_values_that_equal_nothing_stay_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "environment", dict)
    for resume in (False, True):
        held = RunFolder(tmp_path / "run", resume=resume)
        assert held.record_start({"a": [float("nan")], "b": float("inf")}, {}) == []
        held.close()


@pytest.mark.parametrize("seed", [0, 1, 20240611123456, 2**63, 2**64 + 7, 10**30, "20240611123456789012"])
def test_trouble_17_a_seed_is_what_was_written(seed):
    assert Spec.from_dict(PRETRAIN | {"seed": seed}).seed == int(seed)


@pytest.mark.parametrize("seed", [-1, 1.5, 1e30, "-3", True, None, float("nan"), float("inf"), "1e-3"])
def test_trouble_17_or_it_is_refused_by_check(seed):
    with pytest.raises(SpecError, match="seed"):
        Spec.from_dict(PRETRAIN | {"seed": seed})
    with pytest.raises(Di4CError, match="seed"):
        values = PRETRAIN | {"pipeline": {"name": "seeds", "seeds": [0, seed]}}
        check(Spec.from_dict(values), Registry.default())


@pytest.mark.parametrize(
    ("given", "annotation"),
    [(2.7, int), (True, int), (True, float), (False, float), ("2.7", int), (1e30, int), (2.0**53 + 2, int), ("1e99999999", int), ("1e5000", int),
     (float("nan"), float), ("nan", float), ("1e400", float), (10**400, float), (float("inf"), int), (1, bool), ("true", bool), ("1", bool),
     (3, str), (2.7, str), ([1.5], list[int]), ((1, True), tuple[int, int]), ({"a": 0.5}, dict[str, int]), (1.5, int | None), ("x", int | float),
     (1.5, bool | None)],
)  # fmt: skip
def test_trouble_32_no_number_is_cut_off(given, annotation):
    with pytest.raises(SpecError, match="x"):
        coerce(given, annotation, "x")


@pytest.mark.parametrize(
    ("given", "annotation", "value"),
    [("1e3", int, 1000), (1e3, int, 1000), (2.0, int, 2), ("12345678901234567891", int, 12345678901234567891), (" 7 ", int, 7), ("010", int, 10),
     ("1e-4", float, 1e-4), (3, float, 3.0), (float("inf"), float, float("inf")), ("inf", float, float("inf")), (2.7, int | float, 2.7),
     (2, int | float, 2), ("1e3", int | str, "1e3"), (2**53, int, 2**53)],
)  # fmt: skip
def test_trouble_32_what_is_meant_is_taken(given, annotation, value):
    found = coerce(given, annotation, "x")
    assert found == value and type(found) is type(value)


def test_trouble_11_every_path_of_a_spec_and_of_python(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    teacher = write_run(tmp_path / "teacher", PRETRAIN)
    (tmp_path / "mine.py").write_text("DI4C_PLUGINS = {}\n")
    values = distill("~/teacher") | {"plugins": ["~/mine.py"]} | {"train": PRETRAIN["train"] | {"run": "~/x"}}
    spec = Spec.from_dict(values)
    assert spec.train.run == tmp_path / "x" and spec.plugins == [str(tmp_path / "mine.py")]
    assert check(spec, Registry.default(spec.plugins))[2][1].count("no model.safetensors") == 0
    save_spec(spec, tmp_path / "spec.yaml")
    assert read_spec("~/spec.yaml") == spec
    assert di4c.load("~/teacher", device="cpu").digest == di4c.load(teacher, device="cpu").digest


def test_trouble_11_deepspeeds_paths_and_32_its_stage(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = {
        "tensorboard": {"output_path": "~/tb", "job_name": "~"},
        "zero_optimization": {"offload_param": {"nvme_path": "~/nvme"}, "stage": 3},
    }
    found = Spec.from_dict(PRETRAIN | {"deepspeed": config}).deepspeed
    assert found["tensorboard"] == {"output_path": f"{tmp_path}/tb", "job_name": "~"}
    assert found["zero_optimization"]["offload_param"]["nvme_path"] == f"{tmp_path}/nvme"
    for stage in (2.7, "2", True, 4, -1, [1]):
        with pytest.raises(SpecError, match="deepspeed.zero_optimization.stage: expected 0, 1, 2 or 3"):
            Spec.from_dict(PRETRAIN | {"deepspeed": {"zero_optimization": {"stage": stage}}})
    for zero in (3, "x", [1], {"offload_param": "cpu"}):
        with pytest.raises(SpecError, match="expected a mapping"):
            Spec.from_dict(PRETRAIN | {"deepspeed": {"zero_optimization": zero}})


PLUGIN = """
from di4c.contracts import Sampler
from di4c_plugins.processes.maskgit import MaskGITProcess
from di4c_plugins.processes.uniform import Uniform

DI4C_PLUGINS = {"samplers": {"mine": "Mine", "either": "Either", "outer": "Outer"}}

class Mine(Sampler):
    def __init__(self, process: MaskGITProcess): self.process = process
    def step(self, *arguments): ...

class Either(Mine):
    def __init__(self, process: MaskGITProcess | Uniform): self.process = process

class Outer(Mine):
    def __init__(self, process, *, sampler: Sampler): self.process = process
"""


@pytest.mark.parametrize(
    ("sampler", "process", "told"),
    [
        ("mine", "absorbing", "eval.sampler: Mine works with MaskGITProcess, and process is a .* Processes that fit: .*maskgit"),
        ("mine", "maskgit", None), ("either", "absorbing", "MaskGITProcess or Uniform, and"), ("outer", "absorbing", "eval.sampler.sampler: Mine"),
        ("outer", "maskgit", None), ("ancestral", "absorbing", None),
    ],
)  # fmt: skip
def test_trouble_25_check_refuses_a_sampler_that_is_not_made_for_the_process(tmp_path, sampler, process, told):
    (tmp_path / "mine.py").write_text(PLUGIN)
    entry = {"name": sampler} | ({"sampler": "mine"} if sampler == "outer" else {})
    full = {"name": "maskgit", "schedule": "cosine"} if process == "maskgit" else process
    values = changed(PRETRAIN, eval__sampler=entry) | {"plugins": [str(tmp_path / "mine.py")], "process": full}
    spec = Spec.from_dict(values)
    if told is None:
        assert ("eval.sampler", f"mine.py:{sampler.title()}") in check(
            spec, Registry.default(spec.plugins)
        ) or sampler == "ancestral"
        return
    with pytest.raises(SpecError, match=told):
        check(spec, Registry.default(spec.plugins))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of one process, whose results are looked at below."""
    top = tmp_path_factory.mktemp("runs")
    teacher = write_run(top / "teacher", PRETRAIN)
    plain = changed(PRETRAIN, train__steps=2, eval__judge=AWKWARD, train__run=str(top / AWKWARD)) | {
        "seed": 20240611123456
    }
    rounds = changed(distill(teacher), train__run=str(top / "rounds"))
    rounds["pipeline"] = {"name": "rounds", "max": 2, "later": {"teacher": "averaged"}}
    heavier = changed(rounds, objective__data__weight=2.0)
    jobs = {
        "plain": plain, "plain again": plain, "plain, edited": changed(plain, train__optimizer__lr=0.5), "plain, other seed": plain | {"seed": 3},
        "plain, fewer steps": changed(plain, train__steps=1), "plain, more lines": changed(plain, train__log_every=1, eval__seeds=1),
        "rounds": rounds, "rounds, edited": heavier,
        "rounds, later edited": changed(rounds, pipeline__later={"teacher": "averaged", "objective": {"data": {"weight": 3.0}}}),
        "rounds, more lines": changed(rounds, train__log_every=1), "rounds, one more": changed(rounds, pipeline__max=3),
        "rounds, longer": changed(rounds, train__steps=2, pipeline__max=3),
    }  # fmt: skip
    results, text = launch(
        [{"spec": spec, "resume": name not in ("plain", "rounds")} for name, spec in jobs.items()],
        module="tests.pipeline.worker",
    )
    return {"top": top, "plain": Spec.from_dict(plain), "results": dict(zip(jobs, results, strict=True)), "text": text}


def test_trouble_16_and_17_a_run_of_awkward_strings_and_a_large_seed(folders):
    run, spec = folders["top"] / AWKWARD, folders["plain"]
    assert folders["results"]["plain"] == folders["results"]["plain again"] == {"step": 2, "finished": True}, folders[
        "text"
    ]
    assert read_spec(run / "spec.yaml") == spec
    carried = di4c.load(run / "export", device="cpu").spec
    assert di4c.load(run, device="cpu").spec == spec
    assert (carried.eval.judge, carried.seed, carried.train.run) == (AWKWARD, spec.seed, run)
    assert di4c.load(run, device="cpu").sample(2, 1, seed=0).shape == (2, 64)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("plain, edited", "is finished, and was trained with another train.optimizer.lr; set it back"),
        ("plain, other seed", "another seed"),
        ("plain, fewer steps", "is finished with 2 steps, more than train.steps: 1"),
        ("rounds, edited", "round-1 is finished, and was trained with another objective.data.weight"),
        ("rounds, later edited", "round-2 is finished, and was trained with another objective.data.weight"),
        ("rounds, longer", "round-2 was made of .*round-1, which is to be trained now"),
    ],
)
def test_trouble_b07_what_shapes_the_weights_makes_another_run(folders, name, told):
    assert re.search(told, folders["results"][name].get("error", "")), folders["results"][name]


@pytest.mark.parametrize(
    ("name", "steps"), [("plain, more lines", 2), ("rounds", 2), ("rounds, more lines", 2), ("rounds, one more", 3)]
)
def test_trouble_b07_what_does_not_goes_on(folders, name, steps):
    assert folders["results"][name] == {"step": steps, "finished": True}
    assert (folders["top"] / "rounds/round-3/export").exists()


def test_trouble_b07_a_refusal_leaves_what_is_recorded(folders):
    assert recorded_spec(folders["top"] / "rounds")["objective"]["data"]["weight"] == 1.0
    weights = [di4c.load(folders["top"] / "rounds" / name, device="cpu").digest for name in ("round-2", "round-3")]
    assert weights[0] != weights[1] and torch.is_tensor(
        di4c.load(folders["top"] / "rounds", device="cpu").sample(1, 1, seed=0)
    )


IMPOSSIBLE = [
    ("teacher__backbone__width", -4), ("teacher__backbone__width", 17), ("teacher__backbone__heads", 0), ("teacher__backbone__heads", 3),
    ("teacher__backbone__depth", 0), ("teacher__backbone__dropout", 2), ("teacher__backbone__mlp_ratio", -1),
    ("teacher__backbone__grid", [9, 9]), ("teacher__backbone", None), ("teacher__backbone", 3), ("teacher__parameterisation", ["subs"]),
    ("process", {"name": "birth-death", "sigma_min": 0, "sigma_max": 0}), ("process", {"name": "absorbing", "mask_index": -1}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_options_that_no_network_can_have_are_refused_by_name(key, value):
    """Whatever a library says of them: a negative width, a probability of 2, a part that is none."""
    spec = Spec.from_dict(changed(PRETRAIN, **{key: value}))
    with pytest.raises(Di4CError) as caught:
        build(spec, Registry.default())
    told = str(caught.value)
    assert key.split("__")[0] in told and key.split("__")[-1] in told and "\n" not in told


def test_faults_of_a_parts_code_keep_their_trace(monkeypatch):
    def broken(self, **options):
        raise AttributeError("no such thing")

    monkeypatch.setattr("di4c_plugins.backbones.dit.Conditioning.__init__", broken)
    with pytest.raises(TypeError):
        build(Spec.from_dict(PRETRAIN), Registry.default())
