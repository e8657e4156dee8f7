"""Every system, objective and student head at tiny size, as specs."""

from pathlib import Path

import torch

from di4c_plugins.teachers.denoiser import DenoiserTeacher

DIT = {"name": "dit", "width": 16, "depth": 2, "heads": 2, "grid": [8, 8], "time_conditioning": False}
MASKGIT = {"name": "maskgit", "width": 16, "depth": 2, "heads": 2, "mlp_width": 16, "dropout": 0.0}
LANGUAGE = {
    "name": "mdlm-dit",
    "width": 16,
    "depth": 2,
    "heads": 2,
    "conditioning_width": 8,
    "mlp_ratio": 2,
    "dropout": 0.0,
}
UNET = {
    "name": "tauldr-unet",
    "shape": [1, 8, 8],
    "channels": 8,
    "multipliers": [1],
    "res_blocks": 1,
    "attention_at": 0,
    "dropout": 0.0,
}
PIXELS = {
    "name": "discretised-gaussian",
    "rate_sigma": 1.0,
    "target_sigma": 32.0,
    "time_base": 0.5,
    "time_exponential": 100.0,
}
TOKENIZER = {
    "name": "vqgan", "image_size": 8, "channels": 1, "ch": 8, "ch_mult": [1, 1], "num_res_blocks": 1, "z_channels": 8,
    "num_codes": 16, "embed_dim": 4,
}  # fmt: skip
CONSTANT = {"shape": "constant", "scale": 1.0}
STEPS = 5
UNCONDITIONAL = {"name": "digits", "conditional": False}


class Stirred(DenoiserTeacher):
    """A teacher whose weights are all random: fresh ones predict uniformly."""

    def __init__(self, process, num_positions, *, backbone, parameterisation, stir: float = 0.2):
        super().__init__(process, num_positions, backbone=backbone, parameterisation=parameterisation)
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(stir * torch.randn(parameter.shape, device="cpu"))


def denoiser(backbone: dict, parameterisation: str = "subs", **options) -> dict:
    return {"name": f"{__name__}:Stirred", "parameterisation": parameterisation, "backbone": backbone} | options


def di4c(**changes) -> dict:
    """All three terms, the teacher's step and a target of two samples."""
    return {
        "components": 3, "targets": 2, "sampler": "ancestral", "time": {"name": "uniform", "low": 0.05},
        "teacher_step": {"distribution": "constant", "size": 0.2}, "data": {"weight": 1.0, "estimator": "control-variate", "gate": CONSTANT},
        "consistency": {"weight": 0.5, "estimator": "control-variate"}, "distillation": {"weight": 0.5, "max_time": 0.3},
    } | changes  # fmt: skip


def distilled(head: str | dict, backbone: dict = DIT, **sections) -> dict:
    return {
        "task": "distill", "data": "digits", "process": "absorbing", "teacher": denoiser(backbone), "student": {"head": head},
        "latent": "uniform", "objective": di4c(),
    } | sections  # fmt: skip


def pretrained(objective: dict, backbone: dict, **sections) -> dict:
    return {
        "task": "pretrain",
        "data": "digits",
        "process": "absorbing",
        "teacher": denoiser(backbone),
        "objective": objective,
    } | sections


def systems(folder: Path) -> dict[str, dict]:
    """Name → the sections of its spec without train and deepspeed. `folder` gets the text that some of them read."""
    (folder / "text.txt").write_text("the old sailor went home to sleep by the sea " * 40)
    text = {
        "name": "text",
        "path": f"{folder}/text.txt",
        "length": 8,
        "normalise": "letters",
        "cache": f"{folder}/cache",
    }
    language = {"data": text, "process": "mdlm"}
    images = {"process": {"name": "maskgit", "schedule": "arccos"}, "teacher": denoiser(MASKGIT, "raw")}
    pixels = {"data": UNCONDITIONAL, "process": PIXELS, "teacher": denoiser(UNET, "raw", stir=0.03)}
    product = {"latent": {"name": "categorical", "atoms": 1}}
    maskgit = {"name": "maskgit", "annealing": "linear", "gumbel_temperature": 4.5, "guidance": 0.0, "horizon": 8}
    published = di4c(sampler="tauldr-ancestral", time={"name": "above-step", "low": 0.01}, distillation_time={"name": "low-or-uniform", "low": 0.01, "high": 0.02, "probability": 0.5},
                     distillation_copies=2, target_mode="train", distillation={"weight": 1.0})  # fmt: skip
    return {
        "token": distilled("token"),
        "adaln": distilled("adaln"),
        "late": distilled({"name": "late", "blocks": 1}, objective=di4c(components_at_a_time=2)),
        "readout": distilled({"name": "readout", "rank": 4}),
        "rollouts": distilled("token", objective=di4c(reference="teacher", rollouts={"number": 12, "steps": 2, "batch_size": 4})),
        "language": distilled("sinusoidal-token", LANGUAGE, objective=di4c(sampler="mdlm-ancestral", components_at_a_time=1), **language),
        "sdtt": distilled("none", LANGUAGE, **language, **product, objective={
            "name": "sdtt", "distance": "kl-bwd", "base_steps": 8, "rounds": 2, "steps_per_round": 3}),
        "class-conditional": distilled(
            {"name": "sinusoidal-token", "features": 16, "hidden": 16}, **images, objective=di4c(sampler=maskgit, label_dropout=0.1)),
        "pixels": distilled("sinusoidal-embedding", **pixels, objective=published),
        "nelbo": pretrained({"time": {"name": "low-discrepancy", "low": 0.001}, "label_dropout": 0.1}, DIT),
        "denoising": pretrained({"name": "denoising", "cross_entropy": 1.0, "bound": 0.1}, UNET, **pixels),
        "masked-cross-entropy": pretrained({"name": "masked-cross-entropy"}, MASKGIT, **images),
        "tokenizer": {"task": "tokenizer", "data": UNCONDITIONAL, "objective": {"name": "vq", "tokenizer": TOKENIZER}},
    }  # fmt: skip


def job(sections: dict, run: str, zero: dict, **train) -> dict:
    """What tests.engine.shared_base_worker trains; with an eps that keeps gradients of rounding noise from moving weights."""
    options = {
        "run": run, "steps": STEPS, "batch_size": 4, "clip": 100.0, "ema": 0.8, "precision": "fp32", "log_every": 1,
        "optimizer": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.01, "eps": 1e-3}, "schedule": {"warmup": 2, "decay": "constant"},
        "diagnostics_every": 0, "checkpoint_every": 0,
    } | train  # fmt: skip
    return {
        "spec": {"seed": 0, **sections, "train": options, "deepspeed": {"zero_optimization": zero}},
        "resume": False,
    }
