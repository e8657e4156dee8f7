"""A second network of adapters on a shared base: the teacher before training, apart from the student, on one copy of the weights."""

import pytest
import torch

pytest.importorskip("peft")
from di4c.engine.shared_base import share_base
from di4c.errors import SpecError
from tests.systems import tiny_teacher


def shared():
    teacher = tiny_teacher(num_classes=None)
    student = share_base(teacher, rank=2, targets=["qkv"], alpha=4.0)
    return teacher, student, teacher.backbone.with_adapter("critic")


def adapters(student, name: str) -> list[torch.nn.Parameter]:
    return [p for key, p in student.named_parameters() if f".{name}." in key]


def test_each_network_has_its_own_adapters_on_one_base():
    teacher, student, critic = shared()
    x, t = torch.tensor([[0, 1, 5, 5, 2, 5]]), torch.tensor([0.5])
    before = teacher.backbone(x, t)
    assert (
        list(critic.parameters()) == [] and len(adapters(student, "critic")) == len(adapters(student, "default")) == 4
    )
    for parameter in adapters(student, "critic"):
        torch.nn.init.normal_(parameter)
    torch.testing.assert_close(teacher.backbone(x, t), before)
    torch.testing.assert_close(student(x, t), before)
    assert (critic(x, t) - before).abs().max() > 1e-3
    torch.testing.assert_close(student(x, t), before)


def test_gradients_reach_the_adapters_that_were_asked():
    _teacher, student, critic = shared()
    x, t = torch.tensor([[0, 1, 5, 5, 2, 5]]), torch.tensor([0.5])
    critic(x, t).sum().backward()
    moved = {name: any(p.grad is not None for p in adapters(student, name)) for name in ("critic", "default")}
    assert moved == {"critic": True, "default": False}
    assert {key for key in student.state_dict() if "lora" not in key} == {"base_digest"}


def test_a_recomputing_base_is_refused():
    teacher = tiny_teacher(num_classes=None)
    teacher.backbone.recompute = True
    share_base(teacher, rank=2, targets=["qkv"], alpha=4.0)
    with pytest.raises(SpecError, match="recompute"):
        teacher.backbone.with_adapter("critic")
