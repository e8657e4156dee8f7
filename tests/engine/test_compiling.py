"""Compiled backbones give the same numbers and keep their parameters' names."""

import pytest
import torch
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.heads.adaln import Late
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing

from di4c.algorithm.student import MixtureStudent
from di4c.engine.compiling import compile_backbones


def student() -> MixtureStudent:
    torch.manual_seed(0)
    backbone = DiT(6, 5, width=16, depth=2, heads=2)
    torch.nn.init.normal_(backbone.readout.linear.weight)
    return MixtureStudent(backbone, Late(1, backbone, blocks=1), parameterisation=Subs(Absorbing(4)), num_states=5)


@pytest.mark.slow
def test_the_same_features_and_names():
    plain, compiled = student(), student()
    names = [name for name, _ in compiled.named_parameters()]
    assert compile_backbones(compiled, compiled, backend="aot_eager") == 1
    for components in (1, 3):
        arguments = torch.full((2, 6), 4), torch.ones(2), None, torch.rand(2, components, 1)
        ours, theirs = compiled.predict(*arguments).features, plain.predict(*arguments).features
        torch.testing.assert_close(ours, theirs)
        ours.square().sum().backward(), theirs.square().sum().backward()
    for (name, p), q in zip(compiled.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    assert [name for name, _ in compiled.named_parameters()] == names == list(compiled.state_dict())


def test_what_is_compiled_is_the_backbone(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: seen.append((type(self).__name__, options)))
    assert compile_backbones(student()) == 1
    assert seen == [("DiT", {"backend": "inductor"})]
