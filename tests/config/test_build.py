import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from di4c.config.build import DataShape, build, build_metrics, build_sampler, portable
from di4c.config.check import check
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.errors import CheckpointError, RegistryError, SpecError
from tests.config.specs import DISTILL, EVAL, PRETRAIN, changed

SHAPE = DataShape(num_positions=64, num_states=17, num_classes=10)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.default()


def parameters(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_pretraining_builds_what_it_trains(registry):
    parts = build(Spec.from_dict(PRETRAIN), registry)
    assert parts.objective.model is parts.teacher.backbone
    assert all(p.requires_grad for p in parts.teacher.backbone.parameters())
    assert parts.student is None and parts.latent is None
    assert parts.process.num_states == parts.data.num_states + 1


def test_distillation_starts_from_a_frozen_teachers_weights(registry):
    parts = build(Spec.from_dict(DISTILL), registry)
    assert not any(p.requires_grad for p in parts.teacher.backbone.parameters())
    assert all(p.requires_grad for p in parts.student.parameters())
    torch.testing.assert_close(parameters(parts.student.backbone), parameters(parts.teacher.backbone), rtol=0, atol=0)
    trained = {id(p) for p in parts.objective.parameters()}
    assert trained == {id(p) for p in parts.student.parameters()}, "the teacher is no part of what is trained"


def test_initial_weights_follow_the_spec_alone(registry):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build(Spec.from_dict(DISTILL), registry)
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator is left as it was"
    torch.manual_seed(2)
    again = build(Spec.from_dict(DISTILL), registry)
    other = build(Spec.from_dict(changed(DISTILL, seed=1)), registry)
    assert torch.equal(parameters(first.student), parameters(again.student))
    assert not torch.equal(parameters(first.student.head), parameters(other.student.head))


def test_a_skeleton_needs_no_data(registry):
    values = changed(DISTILL, data={"name": "digits", "split_seed": 5})
    skeleton = build(Spec.from_dict(values), registry, weights=False, data=SHAPE)
    whole = build(Spec.from_dict(DISTILL), registry)
    assert skeleton.objective is None
    skeleton.student.load_state_dict(whole.student.state_dict(), strict=True)


def exported_teacher(folder, registry, **entry) -> torch.nn.Module:
    """Writes an export of a teacher with other weights to `folder`; the network."""
    trained = build(Spec.from_dict(changed(PRETRAIN, seed=9)), registry).teacher.backbone
    folder.mkdir()
    save_file(trained.state_dict(), folder / "model.safetensors")
    spec = changed(PRETRAIN, teacher=PRETRAIN["teacher"] | entry)
    (folder / "config.json").write_text(json.dumps({"format": "di4c-export", "version": 1, "spec": spec}))
    return trained


def test_a_run_gives_any_teacher_its_options_and_weights(registry, tmp_path):
    trained = exported_teacher(tmp_path / "export", registry)
    spec = Spec.from_dict(changed(DISTILL, teacher={"name": PRETRAIN["teacher"]["name"], "run": str(tmp_path)}))
    parts = build(spec, registry)
    assert torch.equal(parameters(parts.teacher.backbone), parameters(trained))
    assert torch.equal(parameters(parts.student.backbone), parameters(trained))
    assert portable(spec, parts.teacher).teacher == PRETRAIN["teacher"]


def test_a_run_of_another_kind_of_teacher_is_told(registry, tmp_path):
    exported_teacher(tmp_path / "export", registry, name="mdlm")
    with pytest.raises(SpecError, match="trained a 'mdlm'"):
        build(Spec.from_dict(changed(DISTILL, teacher__run=str(tmp_path))), registry)


def test_evaluation_parts(registry):
    spec = Spec.from_dict(changed(DISTILL, eval=EVAL))
    parts = build(spec, registry)
    assert build_sampler(spec, registry, parts.process).process is parts.process
    assert list(build_metrics(spec, registry, parts.data, parts.process)) == ["entropy"]


def test_evaluation_needs_its_section(registry):
    spec = Spec.from_dict(DISTILL)
    with pytest.raises(SpecError, match="eval: missing"):
        build_sampler(spec, registry, None)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"teacher__backbone__heads": None}, RegistryError, "teacher.backbone: 'dit'.*misses 'heads'"),
        ({"teacher__backbone__widht": 3}, RegistryError, "no option 'widht'. Did you mean 'width'"),
        ({"teacher__backbone__width": "wide"}, SpecError, "teacher.backbone.width: expected an integer"),
        ({"objective__data__wieght": 1}, RegistryError, r"objective.data \(DataTerm\) has no option 'wieght'"),
        (
            {"objective__data__gate__shape": "liner"},
            SpecError,
            "objective.data.gate.shape: found 'liner'. Did you mean 'linear'",
        ),
        ({"objective__data__estimator": "montecarlo"}, RegistryError, "data.estimator: .*Did you mean 'monte-carlo'"),
        (
            {"latent": "di4c_plugins.heads.token:Token"},
            RegistryError,
            "latent: .*is a StudentHead, not a LambdaSampler",
        ),
        ({"data": "collections:OrderedDict"}, RegistryError, "data: .*is an ordinary class, not a DataSource"),
        ({"latent": {"name": "uniform", "dims": 2}}, RegistryError, "latent: .*Did you mean 'dim'"),
    ],
)
def test_check_tells_what_build_would(registry, changes, error, told):
    spec = Spec.from_dict(changed(DISTILL, **changes), source="my.yaml")
    for act in (check, build):
        with pytest.raises(error, match=f"^my.yaml: .*{told}"):
            act(spec, registry)


def test_check_accepts_what_builds(registry):
    told = dict(check(Spec.from_dict(changed(DISTILL, eval=EVAL)), registry))
    sections = ["data", "process", "teacher", "latent", "objective", "student.head", "eval.sampler", "eval.metrics[0]"]
    assert list(told) == sections
    assert told["latent"] == registry.find("lambda_samplers", "uniform").reference


def test_check_passes_over_a_run_that_is_not_there_yet(registry):
    told = dict(check(Spec.from_dict(changed(DISTILL, teacher={"name": "denoiser", "run": "no/such/run"})), registry))
    assert "not checked" in told["teacher"] and "no/such/run" in told["teacher"]


def test_a_head_that_does_not_fit_is_told_with_those_that_do(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from di4c.contracts import Backbone, StudentHead\n"
        "from di4c_plugins.backbones.dit import DiT\n"
        "DI4C_PLUGINS = {'backbones': {'tokens-only': 'TokensOnly'}}\n"
        "class TokensOnly(DiT):\n    accepts = frozenset({'tokens'})\n"
    )
    values = changed(DISTILL, plugins=[str(file)], student={"head": "adaln"}, teacher__backbone__name="tokens-only")
    spec = Spec.from_dict(values)
    for act in (check, build):
        with pytest.raises(SpecError, match="'adaln' needs embedding, but TokensOnly accepts tokens.*fit: .*token"):
            act(spec, Registry.default(spec.plugins))


NETWORK = """
import torch
from torch import nn

class Network(nn.Module):
    def __init__(self, number: float, of: str = "parameter"):
        super().__init__()
        self.embed = nn.Embedding(18, 18)
        self.register_buffer("mask", torch.zeros(2))
        (self.embed.weight if of == "parameter" else self.mask).data[0] = number

    def forward(self, x): return self.embed(x)
"""


@pytest.mark.parametrize(("number", "of", "told"), [(0.5, "parameter", False), (".nan", "parameter", True), ("-.inf", "parameter", True), ("-.inf", "buffer", False), (".nan", "buffer", True)])  # fmt: skip
def test_weights_that_a_network_reads_itself_are_looked_at(tmp_path, monkeypatch, registry, number, of, told):
    """A network of the user's may read its file as it is made: no reader of this project has seen these weights."""
    (tmp_path / f"network_{abs(hash(tmp_path))}.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    module = {
        "name": "module",
        "module": f"network_{abs(hash(tmp_path))}:Network",
        "time": "none",
        "parameterisation": "subs",
    }
    number = yaml.safe_load(str(number))
    spec = Spec.from_dict(
        changed(
            DISTILL,
            teacher=module | {"options": {"number": number, "of": of}},
            student={"head": {"name": "readout", "rank": 2}},
        )
    )
    if not told:
        build(spec, registry)
        return
    with pytest.raises(CheckpointError, match="teacher: '.*(embed.weight|mask)' holds NaN or infinite weights"):
        build(spec, registry)


PLAIN = """
import torch
from di4c.contracts import Backbone, Teacher
from di4c_plugins.parameterisations.subs import Subs

DI4C_PLUGINS = {"teachers": {"plain": "Plain"}}

class Plain(Teacher):
    def __init__(self, process, num_positions, *, width: int = 0, head: str = ""):
        self.process, self.num_positions, self.parameterisation = process, num_positions, Subs(process)
        self.backbone = Backbone()
        if width:
            self.backbone.width = width
        if head:
            self.backbone.readout = getattr(torch.nn, head)(4, process.num_states)
"""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "teacher: Backbone sets no `width`"),
        ({"width": 4}, "teacher: Backbone has no child `readout`"),
        (
            {"width": 4, "head": "Linear"},
            r"teacher: the `readout` of Backbone, Linear, is not called as readout\(h, positions, x_t\)",
        ),
    ],
)
def test_a_plugins_network_that_lacks_something_is_told_before_it_trains(options, told, tmp_path):
    file = tmp_path / "plain.py"
    file.write_text(PLAIN)
    spec = Spec.from_dict(changed(PRETRAIN, plugins=[str(file)], teacher={"name": "plain", **options}))
    with pytest.raises(SpecError, match=told):
        build(spec, Registry.default(spec.plugins))
