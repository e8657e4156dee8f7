"""The MaskGIT transformer's own properties; its numbers are checked against reference cases in tests/golden."""

import copy

import pytest
import torch

from di4c.contracts import Context
from di4c.errors import SpecError
from di4c.testing import check_backbone
from di4c_plugins.backbones.maskgit import MaskGITBackbone, with_tied_output_head

D, S, CLASSES, WIDTH = 9, 8, 3, 16


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return MaskGITBackbone(D, S, num_classes=CLASSES, width=WIDTH, depth=3, heads=2, mlp_width=32, dropout=0.0).eval()


@pytest.fixture
def x_t():
    return torch.randint(S, (2, D), generator=torch.Generator().manual_seed(1))


def tokens(components, seed=2):
    return torch.randn(2 * components, 1, WIDTH, generator=torch.Generator().manual_seed(seed))


T = torch.ones(2)


def test_it_keeps_the_contract(backbone):
    check_backbone(backbone, num_positions=D, num_states=S, num_classes=CLASSES)


def test_shapes_and_b_major_order(backbone, x_t):
    lam = tokens(3)
    h = backbone(x_t, T, torch.tensor([0, 2]), Context(3, tokens=lam))
    assert h.shape == (6, D, WIDTH)
    alone = backbone(x_t[1:], T[:1], torch.tensor([2]), Context(1, tokens=lam[4:5]))
    torch.testing.assert_close(h[4:5], alone)


def test_label_minus_one_is_the_dropped_class_and_so_is_no_label(backbone, x_t):
    with_label = backbone(x_t, T, torch.tensor([1, -1]))
    without = backbone(x_t, T)
    torch.testing.assert_close(with_label[1], without[1])
    assert (with_label[0] - without[0]).abs().max() > 1e-4


def test_a_shared_trunk_gives_every_component_the_same_first_blocks(backbone, x_t):
    full = backbone(x_t, T, None, Context(2, tokens=tokens(2), start=0))
    late = backbone(x_t, T, None, Context(2, tokens=tokens(2), start=2))
    assert late.shape == full.shape
    assert (late - full).abs().max() > 1e-4
    assert (late[0] - late[1]).abs().max() > 1e-4
    with pytest.raises(SpecError, match="no block 3; there are 0 to 2"):
        backbone(x_t, T, None, Context(2, tokens=tokens(2), start=3))


def test_the_linear_readout_is_the_readout(backbone, x_t):
    with torch.no_grad():
        backbone.bias.normal_()
    h = backbone(x_t, T)
    weight, bias = backbone.readout(h, reduction=lambda h, w, b: (w[:S], b[:D, :S]))
    rows = torch.arange(2 * D)
    logits = backbone.readout(h.flatten(0, 1)[:, None], rows % D, x_t.flatten()).view(2, D, S)
    torch.testing.assert_close(logits, h @ weight.T + bias)


def test_the_readout_shares_its_parameters_and_the_others_have_the_public_names(backbone):
    assert backbone.readout.weight is backbone.tok_emb.weight
    published = {name: p.detach() for name, p in backbone.named_parameters()}
    assert "bias" in published and "transformer.layers.2.0.fn.mha.in_proj_weight" in published
    assert not any("readout" in name for name in published)
    twin = copy.deepcopy(backbone)
    assert twin.readout.weight is twin.tok_emb.weight
    twin.load_state_dict(with_tied_output_head(published))


def test_heads_must_divide_the_width():
    with pytest.raises(SpecError, match="not a multiple"):
        MaskGITBackbone(D, S, width=10, heads=3)
