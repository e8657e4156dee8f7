"""The language system's parts hold their contracts, and its specs train and sample at a tiny size."""

import json
from pathlib import Path

import pytest
import torch

from di4c.config.build import build, build_metrics, build_sampler, portable
from di4c.config.registry import Registry
from di4c.config.spec import Spec, read_spec
from di4c.contracts import Draws
from di4c.mixture.student import mixture_denoiser
from di4c.testing import (
    check_backbone,
    check_dataset,
    check_head,
    check_objective,
    check_process,
    check_sampler,
    check_teacher,
)
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.datasets.text import Text
from di4c_plugins.heads.adaln import AdaLN, Late
from di4c_plugins.heads.readout import Readout
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.samplers.analytic import Analytic
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from tests.forked import run

ROOT = Path(__file__).parents[2]
CHAINED = "text-small-sdtt-di4c2"  # its teacher is another spec's run: tests/specs/test_text_small_specs.py trains both
SPECS = sorted(
    path.stem
    for path in (ROOT / "tools" / "specs").glob("*.yaml")
    if path.stem.startswith(("openwebtext", "text-small")) and path.stem != CHAINED
)
STATES, LENGTH = 28, 8
SIZES = {"width": 32, "depth": 2, "heads": 2, "conditioning_width": 8, "mlp_ratio": 2, "dropout": 0.0}
NOISES = ["log-linear", "cosine", "cosine-squared", "linear", "geometric"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    words = [
        "the",
        "sea",
        "was",
        "calm",
        "and",
        "the",
        "old",
        "men",
        "went",
        "home",
        "to",
        "sleep",
        "while",
        "the",
        "wind",
        "blew",
        "from",
        "the",
        "north",
    ]
    for number in range(4):
        (folder / f"{number}.txt").write_text(" ".join(words[(number + 5 * i) % len(words)] for i in range(400)))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def random_network(seed: int = 0) -> MdlmDiT:
    torch.manual_seed(seed)
    network = MdlmDiT(LENGTH, STATES + 1, **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def a_teacher() -> DenoiserTeacher:
    process = Mdlm(STATES)
    return DenoiserTeacher(process, LENGTH, backbone=random_network(), parameterisation=Subs(process)).freeze()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    """Published files of a network with and without λ projection."""
    folder, network = tmp_path_factory.mktemp("checkpoints"), random_network()
    state = {
        f"backbone.{k.replace('readout.linear', 'output_layer.linear')}": v for k, v in network.state_dict().items()
    }
    projection = {f"backbone.latent_{k}": v for k, v in SinusoidalToken(1, network).state_dict().items()}
    torch.save({"state_dict": state}, folder / "teacher.ckpt")
    torch.save({"state_dict": state | projection}, folder / "student.ckpt")
    return {"teacher": str(folder / "teacher.ckpt"), "student": str(folder / "student.ckpt")}


@pytest.mark.parametrize("noise", NOISES)
def test_processes_hold_their_contract(noise):
    check_process(Mdlm(5, noise=noise))


def test_the_network_and_a_teacher_of_it_hold_their_contracts():
    check_backbone(random_network(), num_positions=LENGTH, num_states=STATES + 1)
    check_teacher(a_teacher())


@pytest.mark.parametrize(
    ("head", "options"),
    [
        (SinusoidalToken, {}),
        (SinusoidalToken, {"start": 1}),
        (AdaLN, {}),
        (Late, {"blocks": 1}),
        (Readout, {"rank": 8}),
    ],
)
def test_every_head_enters_the_network(head, options):
    teacher = a_teacher()
    backbone = teacher.student_backbone()
    check_head(head(2, backbone, **options), backbone, latent_dim=2, teacher=teacher)


@pytest.mark.parametrize("sampler", [MdlmAncestral, Analytic])
def test_samplers_hold_their_contract(sampler):
    teacher = a_teacher()
    check_sampler(sampler(teacher.process), teacher)


def test_text_holds_its_contract(corpus, cache):
    check_dataset(Text(length=LENGTH, path=str(corpus), normalise="letters", held_out=0.2, cache=cache))


def tiny(name: str, corpus: Path, cache: str, checkpoints: dict[str, str], out: Path, published: bool = False) -> Spec:
    """A spec of tools/specs at a size of seconds, its data and checkpoints replaced; `published`: of a published student."""
    data = {
        "name": "text",
        "path": str(corpus),
        "normalise": "letters",
        "length": LENGTH,
        "held_out": 0.2,
        "cache": cache,
    }
    sets = {
        "data": data, "train.run": str(out / name), "train.steps": 2, "train.batch_size": 2, "train.schedule.warmup": 0,
        "train.checkpoint_every": 0, "train.precision": "fp32", "eval.samples": 8, "eval.batch_size": 4,
        "eval.seeds": 1, "eval.steps": [2], "deepspeed": {},
    }  # fmt: skip
    values = read_spec(
        ROOT / "tools" / "specs" / f"{name}.yaml", [f"{key}={json.dumps(value)}" for key, value in sets.items()]
    ).to_dict()
    teacher, objective = values["teacher"], values["objective"]
    (values.get("student") or {}).pop("start", None)
    if teacher["name"] == "denoiser":
        values["teacher"] = {"name": "denoiser", "parameterisation": "subs", "backbone": {"name": "mdlm-dit", **SIZES}}
    else:
        backbone = {"name": "mdlm-dit", **SIZES}
        values["teacher"] = {"name": teacher["name"], "path": checkpoints["teacher"], "backbone": backbone}
    if published:
        values["teacher"] |= {"name": "di4c-text", "path": checkpoints["student"], "atoms": 16}
    for key, value in {"components": 4, "targets": 2}.items():
        if key in objective and values["latent"]["name"] != "categorical":
            objective[key] = value
    if "probability" in objective.get("time", {}):
        objective["time"]["probability"] = (
            0.0  # near t = 0 hardly a position is masked, and losses are 0 up to rounding
        )
    values["eval"]["metrics"] = [
        {**metric, "prefix": 3, "length": 6, "prefixes": 2, "group": 2} if metric["name"] == "self-bleu" else metric
        for metric in values["eval"]["metrics"]
    ]
    return Spec.from_dict(values)


def disturb(student: torch.nn.Module | None) -> None:
    """Moves the student away from its teacher: where they agree, losses are 0 up to rounding."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters() if student is not None else ():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("name", SPECS)
def test_specs_build_train_and_sample(name, corpus, cache, checkpoints, tmp_path):
    spec, registry = tiny(name, corpus, cache, checkpoints, tmp_path), Registry.default()
    parts = build(spec, registry)
    disturb(parts.student)
    check_objective(parts.objective, parts.data)
    sampler, draws = build_sampler(spec, registry, parts.process, parts.teacher), Draws(0, count=4)
    denoiser = (
        parts.teacher.predict
        if parts.student is None
        else mixture_denoiser(parts.student, parts.latent, draws.child("λ"))
    )
    x = sampler.sample(denoiser, parts.process.prior(LENGTH, draws), 2, None, draws)
    assert x.shape == (4, LENGTH) and x.max() < STATES
    assert build_metrics(spec, registry, parts.data, parts.process)
    skeleton = build(portable(spec, parts.teacher), registry, weights=False, data=parts.data)
    assert (skeleton.student or skeleton.teacher.backbone).state_dict().keys() == (
        parts.student or parts.teacher.backbone
    ).state_dict().keys()


def test_di4c_squared_starts_as_its_teacher(corpus, cache, checkpoints, tmp_path):
    parts = build(
        tiny("openwebtext-sdtt7-di4c2", corpus, cache, checkpoints, tmp_path, published=True), Registry.default()
    )
    for ours, theirs in ((parts.student.backbone, parts.teacher.backbone), (parts.student.head, parts.teacher.head)):
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_a_published_student_becomes_a_run_that_samples(corpus, cache, checkpoints, tmp_path):
    import di4c

    spec = tiny("openwebtext-sdtt7-di4c2", corpus, cache, checkpoints, tmp_path, published=True)
    file, out = tmp_path / "spec.yaml", tmp_path / "imported"
    file.write_text(json.dumps(spec.to_dict()))
    command = [ROOT / "tools" / "import_student.py", "--spec", file, "--out", out]
    done = run(command)
    assert done.returncode == 0, done.stderr
    model = di4c.load(out, device="cpu")
    network = random_network()
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in model.student.backbone.state_dict().items())
    assert model.sample(3, 2, seed=0).shape == (3, LENGTH)
    prompt = model.data.prompt(prefix="the", suffix="a", infill=" _o")
    x = model.sample(3, 2, seed=0, known=prompt)
    assert (x[:, prompt >= 0] == prompt[prompt >= 0]).all()
    shown = tmp_path / "samples.txt"
    sampled = [ROOT / "tools" / "sample.py", "--run", out, "--steps", "2", "--num", "2", "--out", shown]
    assert run([*sampled, "--prefix", "the "]).returncode == 0
    assert shown.read_text().startswith("[1]\nthe ")
    again = run(command)
    assert again.returncode == 1 and "exists already" in again.stderr
