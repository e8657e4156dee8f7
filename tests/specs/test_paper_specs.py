"""Every spec is valid without data or weights, and those of the paper's runs state its constants."""

from pathlib import Path

import pytest

from di4c.__main__ import main
from di4c.config.check import check
from di4c.config.registry import Registry
from di4c.config.spec import read_spec

SPECS = Path(__file__).parents[2] / "tools" / "specs"
TEXT = {
    "data.length": 1024, "data.tokenizer": "openai-community/gpt2", "data.wrap": True,
    "process.noise": "log-linear", "process.corrupt_grid": 1024, "student.head.name": "sinusoidal-token", "latent.name": "uniform",
    "objective.components": 16, "objective.targets": 16, "objective.x_u": "each", "train.batch_size": 2,
    "objective.time": {"name": "discrete", "count": 1024, "time": {"name": "split", "split": 0.02, "probability": 0.3}},
    "objective.teacher_step": {"distribution": "constant", "size": 1 / 1024, "fraction": 0.5},
    "objective.data.gate": {"shape": "sigmoid", "scale": 0.1}, "objective.data.estimator": "control-variate",
    "objective.consistency": {"weight": 1.0, "estimator": "control-variate", "min_time": 0.02},
    "objective.distillation": {"weight": 1.0, "max_time": 0.02}, "objective.sampler": "mdlm-ancestral",
    "train.optimizer.lr": 3e-5, "train.optimizer.betas": (0.9, 0.999), "train.optimizer.weight_decay": 0.0,
    "train.schedule.warmup": 2500, "train.schedule.decay": "constant", "train.clip": 1.0, "train.precision": "bf16",
    "train.ema": 0.9999, "eval.sampler": {"name": "mdlm-ancestral", "cached": True}, "eval.judge": "gpt2-large",
}  # fmt: skip
PAPER = {
    "cifar10-tauldr-di4c": {
        "data": {"name": "cifar10", "size": 32, "levels": 256, "conditional": False, "flips": True, "path": None},
        "process.rate_sigma": 6.0, "process.target_sigma": 512.0, "process.time_base": 3.0, "process.time_exponential": 100.0,
        "teacher.name": "tauldr", "teacher.ema": True, "teacher.student_from": "raw",
        "student.head": {"name": "sinusoidal-embedding", "scale": 1000.0}, "latent.name": "uniform",
        "objective.components": 16, "objective.targets": 16, "objective.distillation_copies": 16, "objective.x_u": "each",
        "objective.time": {"name": "above-step", "low": 0.01},
        "objective.teacher_step": {"distribution": "log-uniform", "smallest": 1e-3, "largest": 1e-2},
        "objective.distillation_time": {"name": "low-or-uniform", "low": 0.01, "high": 0.02, "probability": 0.5},
        "objective.data.gate": {"shape": "sigmoid", "scale": 1.0}, "objective.consistency": {"weight": 1.0, "estimator": "control-variate"},
        "objective.distillation": {"weight": 1.0}, "objective.target_mode": "train",
        "train.batch_size": 8, "train.optimizer.lr": 2e-4, "train.optimizer.weight_decay": 0.0, "train.schedule.warmup": 0,
        "train.schedule.decay": "constant", "train.clip": 1.0, "train.ema": 0.9999, "train.precision": "fp32",
        "eval.sampler": {"name": "tauldr-ancestral", "min_time": 0.01, "final": "argmax"},
    },
    "imagenet256-maskgit-di4c": {
        "process.schedule": "arccos", "student.head": {"name": "sinusoidal-token", "features": 128, "hidden": 512, "scale": 1000.0},
        "latent.name": "uniform", "objective.components": 32, "objective.targets": 32, "objective.x_u": "each",
        "objective.time": {"name": "uniform"}, "objective.teacher_step": {"distribution": "constant", "size": 0.05},
        "objective.sampler": {"name": "maskgit", "annealing": "linear", "gumbel_temperature": 4.5, "guidance": 0.0, "horizon": 8},
        "objective.data.gate": {"shape": "sigmoid", "scale": 0.1}, "objective.label_dropout": 0.1, "objective.target_mode": "eval",
        "objective.consistency": {"weight": 1.0, "estimator": "control-variate", "min_time": 0.05},
        "objective.distillation": {"weight": 20.0, "max_time": 0.05, "max_time_inclusive": True},
        "train.batch_size": 4, "train.optimizer.lr": 1e-5, "train.optimizer.betas": (0.9, 0.96),
        "train.optimizer.weight_decay": 1e-5, "train.clip": 1.0, "train.ema": None,
        "eval.sampler.guide": "self", "eval.sampler.guidance": 6.0, "eval.sampler.annealing": "linear", "eval.samples": 50000,
    },
    "openwebtext-mdlm-di4c": TEXT | {"teacher": {"name": "mdlm", "path": "kuleshov-group/mdlm-owt"}},
    "openwebtext-sdtt7-di4c": TEXT | {"teacher.name": "sdtt", "teacher.round": 7},
    "openwebtext-sdtt7-di4c2": TEXT | {
        "teacher.name": "sdtt", "teacher.round": 7, "pipeline.name": "rounds", "pipeline.max": 2,
        "pipeline.later": {"teacher": {"name": "averaged", "components": 16}},
    },
    "openwebtext-sdtt": {
        "teacher.name": "mdlm", "objective.base_steps": 1024, "objective.substeps": 2, "objective.rounds": 7,
        "objective.steps_per_round": 10_000, "objective.distance": "kl-bwd", "train.steps": 70_000,
    },
    "cifar10-tauldr-teacher": {
        "teacher.backbone.channels": 128, "teacher.backbone.res_blocks": 2, "teacher.backbone.multipliers": [1, 2, 2, 2],
        "teacher.backbone.attention_at": 1, "teacher.backbone.dropout": 0.1, "process.rate_sigma": 6.0,
        "process.target_sigma": 512.0, "train.optimizer.lr": 2e-4, "train.ema": 0.9999, "train.batch_size": 128,
    },
}  # fmt: skip
"""Key path → value, by the table of the three systems and its traps."""


def at(spec, path: str):
    value = spec
    for key in path.split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


@pytest.mark.parametrize("name", sorted(path.stem for path in SPECS.glob("*.yaml")))
def test_a_spec_checks_without_data_and_weights(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = read_spec(SPECS / f"{name}.yaml")
    parts = dict(check(spec, Registry.default(spec.plugins)))
    assert {"data", "objective"} <= parts.keys()


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_spec_states_the_papers_constants(name):
    spec = read_spec(SPECS / f"{name}.yaml")
    found = {path: at(spec, path) for path in PAPER[name]}
    assert {path: value for path, value in found.items() if value != PAPER[name][path]} == {}


def test_the_command_says_what_it_checked(capsys):
    assert main(["check", str(SPECS / "openwebtext-sdtt7-di4c2.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "round-2: teacher" in shown and "averaged:Averaged" in shown and "options not checked" not in shown


@pytest.mark.parametrize("name", ["text-small-teacher", "openwebtext-mdlm-di4c", "imagenet256-maskgit-di4c"])
def test_a_schedule_that_does_not_exist_is_told_without_data(name, capsys):
    key = "noise" if name == "openwebtext-mdlm-di4c" else "schedule"
    assert main(["check", str(SPECS / f"{name}.yaml"), "--set", f"process.{key}=arcsin"]) != 0
    told = capsys.readouterr().err
    assert f"process.{key}: found 'arcsin'." in told and "Allowed: " in told
