"""Shifts, scales and gates: those of all examples give what those of each example give, by whichever operators."""

import pytest
import torch
from torch import Tensor, nn

from di4c.contracts import Context
from di4c_plugins.backbones import modulation
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.backbones.mdlm_dit import MdlmDiT

SIZES = {"width": 8, "depth": 2, "heads": 2, "time_conditioning": False}
NETWORKS = {
    "dit": lambda dropout: DiT(5, 7, dropout=dropout, **SIZES),
    "mdlm-dit": lambda dropout: MdlmDiT(5, 7, conditioning_width=4, dropout=dropout, **SIZES),
}
EXAMPLES = 3


def network(name: str, dropout: float = 0.0) -> nn.Module:
    """One that sees no time, in double precision, with weights that are not zero."""
    torch.manual_seed(0)
    made = NETWORKS[name](dropout).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def found(net: nn.Module) -> list[Tensor]:
    """Features of a mixture and the gradient of every parameter that has one."""
    torch.manual_seed(1)
    x = torch.randint(7, (EXAMPLES, 5))
    h = net(x, torch.rand(EXAMPLES), None, Context(2, tokens=torch.randn(2 * EXAMPLES, 1, 8), start=1))
    weights = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).view_as(h)
    return [h, *torch.autograd.grad((h * weights).sum(), list(net.parameters()), allow_unused=True)]


def a_row_each(net: nn.Module) -> nn.Module:
    """The network with a conditioning [B, C], of equal rows."""
    embedding = net.conditioning if isinstance(net, DiT) else net.sigma_map
    embedding.register_forward_hook(lambda module, given, result: result.expand(EXAMPLES, -1))
    return net


def hooked(net: nn.Module) -> nn.Module:
    """The network with weights that are there in the calls of their modules alone, as under ZeRO-3."""
    for module in net.modules():
        own = dict(module.named_parameters(recurse=False))

        def gather(module, given, whole=own):
            module._parameters.update(whole)

        def release(module, given, result, whole=own):
            module._parameters.update({name: nn.Parameter(p.new_empty(0)) for name, p in whole.items()})

        if own:
            module.register_forward_pre_hook(gather), module.register_forward_hook(release)
    return net


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("gated", [0, 10**9], ids=["weights gated", "activations gated"])
def test_one_conditioning_of_all_is_that_of_each(name, gated, monkeypatch):
    expected = found(a_row_each(network(name)))
    monkeypatch.setattr(modulation, "GATED_WEIGHTS", gated)
    torch.testing.assert_close(found(network(name)), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_hooks_gather_are_used_in_calls_alone(name, monkeypatch):
    monkeypatch.setattr(modulation, "GATED_WEIGHTS", 0)
    plain, gathering = network(name), hooked(network(name))
    x, t = torch.arange(5 * EXAMPLES).view(EXAMPLES, 5) % 7, torch.rand(EXAMPLES)
    with torch.no_grad():
        torch.testing.assert_close(gathering(x, t), plain(x, t))
    assert not any(p.numel() for p in gathering.blocks.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_autocast_narrows_products_alone(name):
    net = network(name).float()
    with torch.autocast("cpu", torch.bfloat16):
        narrow = found(net)
    for ours, theirs in zip(narrow, found(net), strict=True):
        assert ours is theirs or ours.dtype == torch.float32
    torch.testing.assert_close(narrow[0], found(net)[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_of_dropout_are_the_same_whatever_is_gated(name, monkeypatch):
    results = []
    for gated in (0, 10**9):
        monkeypatch.setattr(modulation, "GATED_WEIGHTS", gated)
        results.append(found(network(name, dropout=0.5).train()))
    torch.testing.assert_close(*results)


def test_a_layer_in_place_of_a_linear_one_is_called():
    class Adapted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    layer, gate = Adapted(4, 4), torch.randn(4)
    h, x = torch.randn(2, 50, 4), torch.randn(2, 50, 4)
    torch.testing.assert_close(modulation.add_gated(h, gate, x, layer, nn.Identity()), h + gate * layer(x))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("watched", ["a forward of its own", "a hook of its own", "a hook of all modules"])
def test_what_stands_in_for_a_call_is_called_whatever_the_batch(name, watched, monkeypatch):
    """Every linear layer is watched in turn; what is done to its output must count in one row as in many."""
    monkeypatch.setattr(modulation, "GATED_WEIGHTS", 0)
    net = network(name)
    x, t = torch.arange(5 * EXAMPLES).view(EXAMPLES, 5) % 7, torch.rand(EXAMPLES)
    for layer in [module for module in net.blocks.modules() if type(module) is nn.Linear]:
        seen: list[nn.Module] = []
        if watched == "a forward of its own":
            layer.forward = lambda h, layer=layer, seen=seen: seen.append(layer) or nn.Linear.forward(layer, h)
        else:
            hook = lambda module, given, result, seen=seen: seen.append(module)
            of_all = nn.modules.module.register_module_forward_hook
            handle = layer.register_forward_hook(hook) if watched == "a hook of its own" else of_all(hook)
        with torch.no_grad():
            net(x, t), net(x[:1], t[:1])
        if watched == "a forward of its own":
            del layer.forward
        else:
            handle.remove()
        assert seen.count(layer) == 2


def test_a_modulated_norm_has_no_bias():
    assert modulation.ModulatedLayerNorm(4).bias is None and modulation.ModulatedLayerNorm(4).weight is not None
