"""--set KEY=VALUE."""

from pathlib import Path

import pytest

from di4c.config.overrides import overridden
from di4c.config.spec import changed as changed_spec
from di4c.config.spec import read_spec
from di4c.errors import SpecError
from tests.config.specs import DISTILL, EVAL, PRETRAIN, changed, written

RUNS = (
    "/data/set #1/run", "a: b", "#x", "a #b", "*a", "&a", "!a", "%a", "@a", "`a", "|", "> a", "- a", "? a", "a, b", "a]b", "a}b", "a'b",
    'a"b', "x:", "a\\b", " x", "x ", "1:30", "2024-01-31", "010", "é", "$a", "a=b", "---", "<<", "=", "a\tb", "1.2.3", "0x", "1e", "ä #",
)  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_trouble_15_a_value_is_what_was_written(tmp_path, run):
    file = written(tmp_path, PRETRAIN)
    assert read_spec(file, [f"train.run={run}"]).train.run == Path(run)
    assert read_spec(file, [f"eval={EVAL | {'judge': 'x'}}", f"eval.judge={run}"]).eval.judge == run


@pytest.mark.parametrize("run", ["'1e3'", '"1e3"', "'[a'", '"{a"', '"it\'s"', "'a ''b'''", r"a\${b}"])
def test_trouble_15_what_begins_like_yaml_is_quoted(tmp_path, run):
    found = read_spec(written(tmp_path, PRETRAIN), [f"train.run={run}"]).train.run
    assert str(found) in ("1e3", "[a", "{a", "it's", "a 'b'", "a${b}")


@pytest.mark.parametrize(
    "value", ["[", "{a", "'", '"a', "[a]b", "{a: 1} #", "${", "${nope}", "???", "1e999", "9" * 5000, "0x_"]
)
def test_trouble_15_what_cannot_be_taken_is_refused(tmp_path, value):
    with pytest.raises(SpecError) as raised:
        read_spec(written(tmp_path, PRETRAIN), [f"train.run={value}"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("data.conditional=false", ("data", {"name": "digits", "conditional": False})),
        ("process.schedule=log-linear", ("process", {"name": "absorbing", "schedule": "log-linear"})),
        ("latent.dim=2", ("latent", {"name": "uniform", "dim": 2})),
        ("eval.sampler.temperature=1", ("eval.sampler", {"name": "ancestral", "temperature": 1})),
        ("eval.metrics[0].x=1", ("eval.metrics[0]", {"name": "entropy", "x": 1})),
        ("eval.metrics.0.x=1", ("eval.metrics[0]", {"name": "entropy", "x": 1})),
        ("student.head.dim=1", ("student.head", {"name": "token", "dim": 1})),
        ("objective.sampler.x=1", ("objective.sampler", {"name": "ancestral", "x": 1})),
        ("objective.data.estimator.x=1", ("objective.data.estimator", {"name": "monte-carlo", "x": 1})),
        ("objective.distillation_time.low=0.1", ("objective.distillation_time", {"name": "uniform", "low": 0.1})),
        ("teacher.parameterisation.x=1", ("teacher.parameterisation", {"name": "subs", "x": 1})),
        ("teacher.backbone.x=1", ("teacher.backbone", {"name": "dit", "x": 1})),
        ("pipeline.later.teacher.x=1", ("pipeline.later.teacher", {"name": "averaged", "x": 1})),
        ("pipeline.max=1", ("pipeline", {"name": "rounds", "max": 1})),
    ],
)  # fmt: skip
def test_trouble_21_a_bare_word_keeps_its_options(override, where):
    bare = changed(DISTILL, eval=EVAL, objective__distillation_time="uniform", teacher__backbone="dit")
    bare["pipeline"] = {"later": {"teacher": "averaged"}} if "later" in override else "rounds"
    found = overridden(bare, [override], list(bare))
    for step in where[0].replace("[0]", ".0").split("."):
        found = found[int(step)] if isinstance(found, list) else found[step]
    assert found == where[1]
    assert bare["data"] == "digits", "what was given is as it was"


def test_trouble_21_the_spec_takes_it(tmp_path):
    file = written(tmp_path, PRETRAIN)
    assert read_spec(file, ["data.conditional=false"]).data == {"name": "digits", "conditional": False}
    spec = changed_spec(read_spec(file, [f"eval={EVAL}"]), ["data.conditional=false", "eval.sampler.x=${eval.samples}"])
    assert spec.data["conditional"] is False and spec.eval.sampler == {"name": "ancestral", "x": 8}


def test_a_change_below_an_interpolation_is_of_that_place_alone():
    values = {"teacher": {"backbone": {"name": "dit", "width": 8}}, "student": {"head": "${teacher.backbone}"}}
    found = overridden(values, ["student.head.width=4"], values)
    assert found["student"]["head"] == {"name": "dit", "width": 4} and found["teacher"]["backbone"]["width"] == 8


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed.x=1", "seed is 0, which has no keys"), ("train..x=1", "is no key"), ("train.=1", "is no key"), ("eval.metrics[7]=1", "no place"),
        ("train[0]=1", "train.0: unknown key"), ("eval.metrics.x=1", "no place"), ("train.run.x=1", "has no keys"), ("a[b]=1", "is no key"),
    ],
)  # fmt: skip
def test_a_key_that_is_none(tmp_path, override, told):
    with pytest.raises(SpecError, match=told):
        read_spec(written(tmp_path, changed(PRETRAIN, eval=EVAL)), [override])
