import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from di4c.config.spec import Spec, entries, read_spec, save_spec
from di4c.engine.deepspeed_config import NOT_GIVEN
from di4c.errors import RegistryError, SpecError
from tests.config.specs import DISTILL, EVAL, PRETRAIN, changed, written


def test_a_spec_is_read_into_plain_values(tmp_path):
    spec = read_spec(written(tmp_path, changed(PRETRAIN, train__steps="1e3", train__optimizer__lr="3e-4", eval=EVAL)))
    assert (spec.train.steps, spec.train.optimizer.lr, spec.train.run) == (1000, 3e-4, Path("runs/x"))
    assert spec.data == {"name": "digits"}
    assert spec.objective["name"] == "nelbo", "the task's own objective where none is named"
    assert spec.eval.metrics == [{"name": "entropy"}]
    assert spec.eval.mixture_sizes == ["inf"]


WITH_EVAL = changed(DISTILL, eval=EVAL | {"mixture_sizes": [1, "inf", "product"]})


@pytest.mark.parametrize("values", [PRETRAIN, DISTILL, WITH_EVAL])
def test_a_spec_round_trips(tmp_path, values):
    spec = read_spec(written(tmp_path, values))
    assert Spec.from_dict(spec.to_dict()) == spec
    save_spec(spec, tmp_path / "saved.yaml")
    assert read_spec(tmp_path / "saved.yaml") == spec
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved.yaml", "spec.yaml"], "nothing unfinished is left"


@settings(max_examples=30, deadline=None)
@given(
    st.floats(1e-12, 1e3),
    st.integers(1, 10**9),
    st.none() | st.floats(0, 1, exclude_max=True),
    st.dictionaries(st.text("abc.λ", min_size=1), st.floats(0, 10), max_size=2),
    st.text("1e-4:#{ $x", max_size=8),
)
def test_any_values_round_trip(tmp_path_factory, lr, steps, ema, multipliers, note):
    values = changed(PRETRAIN, train__steps=steps, train__optimizer__lr=lr)
    values["train"]["optimizer"]["lr_multipliers"] = multipliers
    values["train"]["ema"] = ema
    values["deepspeed"] = {"note": note.replace("${", "")}
    spec = Spec.from_dict(values)
    file = tmp_path_factory.mktemp("spec") / "saved.yaml"
    save_spec(spec, file)
    assert read_spec(file) == spec


def test_reading_imports_neither_torch_nor_parts(tmp_path):
    file = written(tmp_path, DISTILL)
    code = f"""
        import sys
        from di4c.config.spec import read_spec
        read_spec({str(file)!r})
        heavy = [n for n in sys.modules if n.split(".")[0] in ("torch", "deepspeed", "numpy", "di4c_plugins")]
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_overrides_and_interpolation(tmp_path):
    file = written(tmp_path, changed(PRETRAIN, train__run="runs/${seed}-${train.steps}"))
    spec = read_spec(
        file,
        [
            "seed=7",
            "train.steps=25",
            "process={name: absorbing, schedule: log-linear}",
            "train.optimizer.betas=[0.5,0.6]",
            "train.clip=null",
            "train.optimizer.lr_multipliers.head=10",
            "train.checkpoint_every=${train.steps}",
        ],
    )
    assert spec.train.run == Path("runs/7-25")
    assert spec.process == {"name": "absorbing", "schedule": "log-linear"}
    assert spec.train.optimizer.betas == (0.5, 0.6)
    assert spec.train.clip is None
    assert spec.train.optimizer.lr_multipliers == {"head": 10.0}
    assert spec.train.checkpoint_every == 25


def test_an_override_replaces_an_entry_whole(tmp_path):
    values = changed(DISTILL, student={"head": {"name": "late", "blocks": 1}})
    assert read_spec(written(tmp_path, values), ["student.head=token"]).student.head == {"name": "token"}


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"sead": 1}, SpecError, r"sead: unknown key\. Did you mean 'seed'\? Allowed: .*teacher"),
        ({"seed": None}, SpecError, "seed: missing, expected an integer"),
        ({"seed": "x"}, SpecError, "seed: expected an integer, found 'x'"),
        ({"task": "destill"}, SpecError, "task: found 'destill'. Did you mean 'distill'"),
        ({"teacher": None}, SpecError, "teacher: missing; task 'pretrain' needs data, process, teacher"),
        ({"train__stesp": 3}, SpecError, "train.stesp: unknown key. Did you mean 'steps'"),
        ({"train__steps": None}, SpecError, "train.steps: missing"),
        ({"train__steps": 0}, SpecError, "train.steps: expected at least 1, found 0"),
        ({"train__batch_size": 2.5}, SpecError, "train.batch_size: expected an integer, found 2.5"),
        ({"train__optimizer__lr": "fast"}, SpecError, "train.optimizer.lr: expected a number, found 'fast'"),
        ({"train__optimizer__betas": [0.9]}, SpecError, "train.optimizer.betas: expected 2 values"),
        ({"train__optimizer__betas": [0.9, 1.0]}, SpecError, "train.optimizer.betas: expected two numbers"),
        ({"train__precision": "fp16"}, SpecError, "train.precision: found 'fp16'.*Allowed: bf16, fp32"),
        ({"train__schedule": {"warmup": 1, "decay": "cosine"}}, SpecError, "train.schedule.final: expected a fraction"),
        (
            {"train__schedule": {"warmup": -1, "decay": "constant"}},
            SpecError,
            "train.schedule.warmup: expected a number of steps ≥ 0",
        ),
        ({"train__ema": 1.5}, SpecError, "train.ema: expected a decay"),
        ({"train": 3}, SpecError, "train: expected a mapping, found 3"),
        ({"data": "digit"}, RegistryError, "data.name: no dataset named 'digit'. Did you mean 'digits'"),
        ({"data": {"nmae": "digits"}}, SpecError, "data.name: expected a string, found None"),
        ({"teacher__backbone": {"name": "dti"}}, RegistryError, "teacher.backbone.name: no backbone named 'dti'"),
        ({"objective__x": {"estimator": {"name": "mc"}}}, RegistryError, "objective.x.estimator.name: no estimator"),
        ({"deepspeed": {"train_batch_size": 3}}, SpecError, "deepspeed.train_batch_size: .*use train.batch_size"),
        ({"plugins": ["absent.py"]}, RegistryError, "plugins: no file .*absent.py"),
        ({"plugins": "mine.py"}, SpecError, "plugins: expected a list of strings"),
        ({"eval": EVAL | {"mixture_sizes": [0]}}, SpecError, "eval.mixture_sizes: .*found 0"),
        ({"latent": "token"}, RegistryError, r"latent.name: no latent named 'token' \('token' names a head\)"),
        (
            {"eval": EVAL | {"metrics": ["entropy", "entropy"]}},
            SpecError,
            r"eval.metrics\[1\].name: 'entropy' is listed twice",
        ),
        ({"eval": EVAL | {"steps": []}}, SpecError, "eval.steps: expected numbers of steps"),
        ({"eval": EVAL | {"metrics": ["entrpy"]}}, RegistryError, r"eval.metrics\[0\].name: no metric named 'entrpy'"),
    ],
)
def test_a_mistake_names_file_key_and_what_is_allowed(tmp_path, changes, error, told):
    file = written(tmp_path, changed(PRETRAIN, **changes))
    with pytest.raises(error, match=f"^{file}: {told}"):
        read_spec(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected|missing"),
        ("- a\n- b\n", "expected a mapping of task"),
        ("task: [", "cannot be read as YAML"),
        ("task: pretrain\ntask: distill\n", "cannot be read as YAML"),
        ("task: ${nothing.here}\n", "task: .*nothing"),
        ("task: ???\n", "task"),
        ("\x00\xff", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_spec(tmp_path, text, told):
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError, match=f"^{file}: (?s:.*)({told})"):
        read_spec(file)


def test_an_absent_file_and_a_folder(tmp_path):
    with pytest.raises(SpecError, match="absent.yaml: no such file"):
        read_spec(tmp_path / "absent.yaml")
    with pytest.raises(SpecError, match="is a folder; expected a spec"):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("trian.steps=3", "unknown key. Did you mean 'train'"),
        ("train.steps=[", "the value is not YAML"),
        ("train.step=3", "train.step: unknown key. Did you mean 'steps'"),
        ("seed.x=3", "seed"),
    ],
)
def test_bad_overrides(tmp_path, override, told):
    with pytest.raises(SpecError, match=told):
        read_spec(written(tmp_path, PRETRAIN), [override])


def test_plugin_files_start_at_the_specs_folder(tmp_path, monkeypatch):
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "mine.py").write_text('DI4C_PLUGINS = {"datasets": {"mine": "Mine"}}\nclass Mine: pass\n')
    file = written(folder, changed(PRETRAIN, plugins=["mine.py"], data="mine"))
    monkeypatch.chdir(tmp_path)
    spec = read_spec(Path("specs/spec.yaml"))
    assert spec.plugins == [str(folder / "mine.py")]
    save_spec(spec, tmp_path / "elsewhere.yaml")
    assert read_spec(tmp_path / "elsewhere.yaml") == read_spec(file)


def test_every_owned_deepspeed_key_is_refused(tmp_path):
    for key in NOT_GIVEN:
        with pytest.raises(SpecError, match=NOT_GIVEN[key].split()[0]):
            read_spec(written(tmp_path, changed(PRETRAIN, deepspeed={key: 1})))


def test_deepspeeds_own_keys_pass_through(tmp_path):
    config = {"zero_optimization": {"stage": 2}, "tensorboard": {"enabled": True}}
    assert read_spec(written(tmp_path, changed(PRETRAIN, deepspeed=config))).deepspeed == config


def test_the_result_shaping_keys_have_no_default(tmp_path):
    for key in ("run", "steps", "batch_size", "optimizer", "schedule", "precision", "clip", "ema"):
        with pytest.raises(SpecError, match=f"train.{key}: missing"):
            read_spec(written(tmp_path, changed(PRETRAIN, **{f"train__{key}": None})))


def test_entries_cover_every_part(tmp_path):
    spec = read_spec(written(tmp_path, changed(DISTILL, eval=EVAL)))
    assert [where for where, _, _ in entries(spec)] == [
        "data",
        "process",
        "teacher",
        "latent",
        "objective",
        "student.head",
        "eval.sampler",
        "eval.metrics[0]",
    ]


def test_saving_never_damages_what_is_there(tmp_path, monkeypatch):
    spec = read_spec(written(tmp_path, PRETRAIN))
    target = tmp_path / "saved.yaml"
    target.write_text("precious")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        save_spec(spec, target)
    assert target.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved.yaml", "spec.yaml"]


def test_a_tokenizers_objective_is_named():
    spec = {"task": "tokenizer", "seed": 0, "data": "digits", "train": PRETRAIN["train"]}
    assert Spec.from_dict(spec | {"objective": "vq"}).objective == {"name": "vq"}
    with pytest.raises(SpecError, match="objective.name: expected a string, found None"):
        Spec.from_dict(spec | {"objective": {"tokenizer": "vqgan"}})


@pytest.mark.parametrize(("key", "meant"), [("zero_optimisation", "zero_optimization"), ("Zero_Optimization", "zero_optimization"), ("tensor_board", "tensorboard"), ("gradient_clip", "gradient_clipping")])  # fmt: skip
def test_a_mistyped_key_of_deepspeed_is_told(tmp_path, key, meant):
    """DeepSpeed passes over keys that it does not know: the stage would be 0 without a word."""
    with pytest.raises(SpecError, match=f"deepspeed.{key}: .*Did you mean '{meant}'"):
        read_spec(written(tmp_path, changed(PRETRAIN, deepspeed={key: {"stage": 2}})))


@pytest.mark.parametrize("key", ["lr", "weight_decay", "eps"])
def test_numbers_of_the_optimizer_are_finite(key):
    with pytest.raises(SpecError, match=f"train.optimizer.{key}: expected a finite number"):
        Spec.from_dict(changed(PRETRAIN, **{f"train__optimizer__{key}": float("inf")}))
