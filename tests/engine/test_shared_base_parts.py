"""Teacher and student on one copy of the weights."""

import copy

import pytest
import torch

pytest.importorskip("peft")
from di4c.contracts import Draws, strict_load
from di4c.engine.shared_base import DIGEST, share_base
from di4c.errors import CheckpointError, SpecError
from di4c.mixture.student import MixtureStudent
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.heads.readout import Readout
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.denoiser import DenoiserTeacher

D, S, B, M = 6, 5, 3, 4
LORA = {"rank": 2, "targets": ["qkv", "out"], "alpha": 4.0}
T = torch.full((B,), 0.7)


def teacher(seed: int = 0, dropout: float = 0.2) -> DenoiserTeacher:
    torch.manual_seed(seed)
    process = Absorbing(S)
    backbone = DiT(D, process.num_states, width=16, depth=2, heads=2, dropout=dropout)
    torch.nn.init.normal_(backbone.readout.linear.weight)
    return DenoiserTeacher(process, D, backbone=backbone, parameterisation=Subs(process)).freeze()


def shared(seed: int = 0) -> tuple[DenoiserTeacher, MixtureStudent]:
    made = teacher(seed)
    backbone = share_base(made, **LORA)
    head = Readout(1, backbone, rank=3)
    return made, MixtureStudent(
        backbone, head, parameterisation=made.parameterisation, num_states=made.process.num_states
    )


def x_t() -> torch.Tensor:
    return Draws(0, count=B).integers(S + 1, D)


def stirred(student: MixtureStudent) -> MixtureStudent:
    """The student with adapters that are not zero."""
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return student


def log_p(made: DenoiserTeacher) -> torch.Tensor:
    return made.predict(x_t(), T).log_probs(torch.arange(B * D))


def test_the_teacher_predicts_as_before_whatever_its_student_learns():
    before = log_p(teacher())
    made, student = shared()
    assert torch.equal(log_p(made), before)
    stirred(student).train()
    assert torch.equal(log_p(made), before) and student.backbone.training
    assert all(module.training for module in student.modules())


def test_a_fresh_student_starts_as_the_teacher_and_its_adapters_then_change_it():
    made, student = shared()
    student.eval()
    with torch.no_grad():
        features = student.backbone(x_t(), T)
        assert torch.equal(features, made.backbone(x_t(), T))
        stirred(student)
        assert (student.backbone(x_t(), T) - features).abs().max() > 1e-2


def test_weights_are_not_copied():
    made = teacher()
    pointers = {p.data_ptr() for p in made.backbone.parameters()}
    backbone = share_base(made, **LORA)
    base = [p for p in backbone.parameters() if not p.requires_grad]
    assert {p.data_ptr() for p in base} == pointers
    assert not list(made.backbone.parameters())


def test_gradients_reach_adapters_and_head_alone_also_past_a_teachers_prediction():
    made, student = shared()
    stirred(student)
    lam = Draws(1, count=B).uniform(M, 1).float()
    prediction = student.predict(x_t(), T, None, lam)
    log_p(made)  # between the student's forward and backward pass
    prediction.log_prob_of(Draws(2, count=B).integers(S, D)).sum().backward()
    for name, parameter in student.named_parameters():
        trained = "lora_" in name or name.startswith("head.")
        assert parameter.requires_grad == trained and (parameter.grad is not None) == trained, name


def test_the_state_dict_holds_what_is_trained_and_loads_onto_the_same_base():
    _, student = shared()
    state = stirred(student).state_dict()
    assert set(state) == {n for n, p in student.named_parameters() if p.requires_grad} | {f"backbone.{DIGEST}"}
    _, again = shared()
    strict_load(again, copy.deepcopy(state), "export")
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))
    again.backbone.load_state_dict({k[9:]: v for k, v in state.items() if k.startswith("backbone.")})


def test_adapters_of_another_base_are_refused():
    _, student = shared()
    _, other = shared(seed=1)
    with pytest.raises(CheckpointError, match="another base"):
        strict_load(other, student.state_dict(), "export")


@pytest.mark.parametrize("target", ["readout.linear", "querry"])
def test_targets_must_name_layers_before_the_readout(target):
    with pytest.raises(SpecError, match="targets.*names no linear layer.*qkv"):
        share_base(teacher(), rank=2, targets=[target], alpha=1.0)


def test_a_base_is_shared_once():
    made, _ = shared()
    with pytest.raises(SpecError, match="already shared"):
        made.student_backbone()
