"""Rotary positions: the turn of every pair, its gradient, and tokens that are left alone."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from di4c.contracts import Context
from di4c.errors import SpecError
from di4c_plugins.backbones import rotary as rotary_module
from di4c_plugins.backbones.dit import DiT, grid_angles
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.backbones.rotary import Rotary

D, HEADS, HALF = 5, 3, 4
ANGLES = torch.rand(D, HALF, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6


@pytest.mark.parametrize("pairs", ["neighbours", "halves"])
@pytest.mark.parametrize(("positions", "extra"), [(D, 0), (D, 2), (3, 1)])
def test_pairs_of_queries_and_keys_are_turned_by_their_angles(pairs, positions, extra):
    qkv = torch.randn(2, positions + extra, 3 * HEADS * 2 * HALF, dtype=torch.float64, requires_grad=True)
    rotary = Rotary(ANGLES, HEADS, pairs)
    found = rotary(positions, extra, qkv).split(qkv)
    whole = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    angles = torch.cat([ANGLES[:positions], torch.zeros(extra, HALF)])
    cos, sin = angles.cos(), angles.sin()
    expected = []
    for x in whole[:2]:
        a, b = (x[..., 0::2], x[..., 1::2]) if pairs == "neighbours" else x.chunk(2, dim=-1)
        parts = [a * cos - b * sin, b * cos + a * sin]
        expected.append(torch.stack(parts, -1).flatten(-2) if pairs == "neighbours" else torch.cat(parts, -1))
    expected.append(whole[2])
    weights = [torch.randn_like(x) for x in found]
    gradients = [
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(xs, weights, strict=True)), qkv)[0]
        for xs in (found, expected)
    ]
    for ours, theirs in [*zip(found, expected, strict=True), gradients]:
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # the tables are float32


def test_the_tables_are_no_weights_and_stay_exact_where_a_network_is_cast():
    rotary = Rotary(ANGLES, HEADS, "halves")
    expected = rotary.tables.clone()
    for cast in (torch.nn.Module.bfloat16, torch.nn.Module.double, torch.nn.Module.half):
        assert torch.equal(cast(rotary).tables, expected) and rotary.tables.dtype == torch.float32
    assert not rotary.state_dict()


def test_a_longer_sequence_than_the_network_was_built_for_is_refused():
    with pytest.raises(SpecError, match="6 tokens, but the network was built for 5"):
        Rotary(ANGLES, HEADS, "halves")(6, 0, torch.zeros(1))


def test_images_turn_by_rows_and_by_columns():
    angles = grid_angles([2, 3], 8).view(2, 3, 4)
    torch.testing.assert_close(angles[1, 2], torch.tensor([1.0, 0.1, 2.0, 0.2], dtype=torch.float64))


VIEWS = {
    "_unsafe_view", "alias", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes", "t", "transpose",
    "unbind", "unsqueeze", "view",
}  # fmt: skip


class Operators(TorchDispatchMode):
    """The names of the operators that run, views left out."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        self.names += [] if name in VIEWS else [name]
        return function(*arguments, **(keywords or {}))


NETWORKS = {
    "dit": lambda **sizes: DiT(6, 7, **sizes),
    "mdlm-dit": lambda **sizes: MdlmDiT(6, 7, conditioning_width=8, dropout=0.0, **sizes),
}


def operators(name: str, depth: int) -> tuple[list[str], list[str]]:
    """Those of a forward and of a backward pass of a network in which λ is a token."""
    torch.manual_seed(0)
    net = NETWORKS[name](width=16, depth=depth, heads=2)
    with Operators() as forward:
        h = net(torch.zeros(2, 6, dtype=torch.int64), torch.ones(2), None, Context(2, tokens=torch.randn(4, 1, 16)))
    with Operators() as backward:
        h.square().sum().backward()
    return forward.names, backward.names


@pytest.mark.parametrize(("name", "ahead", "back", "split"), [("dit", 22, 55, 2), ("mdlm-dit", 15, 34, 1)])
def test_a_block_concatenates_nothing_and_has_few_operators(name, ahead, back, split):
    """split: gradients of what was split: (q, k), and the modulation, where its rows differ."""
    (two, two_back), (three, three_back) = operators(name, 2), operators(name, 3)
    assert three.count("cat") == two.count("cat")
    assert three_back.count("cat") - two_back.count("cat") == split
    assert len(three) - len(two) <= ahead
    assert len(three_back) - len(two_back) <= back


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_bfloat16_follows_the_one_in_float32(name):
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        net = NETWORKS[name](width=16, depth=2, heads=2).to(dtype)
        found.append(net(torch.arange(12).view(2, 6) % 7, torch.ones(2), None, Context(2, tokens=torch.ones(4, 1, 16))))
    assert found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[1].float(), found[0], rtol=0.05, atol=0.05)


def test_turning_gives_the_bits_of_a_complex_product():
    """Forwards and backwards, in single precision on a CPU: runs of the small transformer stay what they were."""
    g = torch.Generator().manual_seed(0)
    angles = torch.rand(16, 4, generator=g, dtype=torch.float64) * 6
    x = torch.randn(2, 16, 3 * 16, generator=g, requires_grad=True)
    queries, keys, _ = Rotary(angles, 2, "neighbours")(16, 0, x).split(x)
    turn = torch.complex(angles.cos().float(), angles.sin().float())
    parts = x.detach().clone().requires_grad_()
    found = []
    for part in parts.split(16, -1)[:2]:
        pairs = part.unflatten(-1, (2, 4, 2)).transpose(1, 2).contiguous()
        found.append(torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2))
    assert torch.equal(queries, found[0]) and torch.equal(keys, found[1])
    weight = torch.randn(queries.shape, generator=g)
    ours = torch.autograd.grad((queries * weight).sum() + (keys * weight).sum(), x)[0]
    theirs = torch.autograd.grad((found[0] * weight).sum() + (found[1] * weight).sum(), parts)[0]
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_real_and_complex_arithmetic_turn_neighbours_to_the_same_bits(dtype, sign):
    qkv = torch.randn(2, D, 3 * HEADS * 2 * HALF, dtype=dtype)
    both, tables = qkv[..., : 4 * HEADS * HALF], Rotary(ANGLES, HEADS, "neighbours")(D, 0, qkv).tables
    found = [turn(both, tables, 1, sign) for turn in (rotary_module._turn, rotary_module._turn_neighbours)]
    assert torch.equal(*found)


LAYOUTS = {
    "odd rows": lambda: torch.randn(2, D, 73)[..., :72],
    "odd offset": lambda: torch.randn(2 * D * 72 + 1)[1:].view(2, D, 72),
    "channels first": lambda: torch.randn(2, 72, D).transpose(1, 2),
    "one for all": lambda: torch.randn(1, 1, 1).expand(2, D, 72),
    "empty": lambda: torch.randn(0, D, 72),
}


@pytest.mark.parametrize("pairs", ["neighbours", "halves"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_lies_otherwise_in_memory_is_turned_alike(pairs, layout):
    qkv = LAYOUTS[layout]()
    turns = Rotary(ANGLES, HEADS, pairs)(D, 0, qkv)
    for ours, theirs in zip(turns.split(qkv), turns.split(qkv.contiguous()), strict=True):
        assert torch.equal(ours, theirs)
    turned = qkv.contiguous().requires_grad_()
    both, rest = rotary_module._Turn.apply(turned, turns.tables, turns.distance)
    torch.autograd.backward([both, rest], [torch.ones(()).expand_as(both), 2 * torch.ones_like(rest)])
    expected = rotary_module._turn(torch.ones_like(both), turns.tables, turns.distance, -1)
    assert torch.equal(turned.grad, torch.cat([expected, 2 * torch.ones_like(rest)], -1))
