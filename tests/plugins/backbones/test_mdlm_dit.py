"""MDLM's network: how λ and time enter it, beyond the reference numbers in tests/golden."""

import pytest
import torch

from di4c.contracts import Context
from di4c.errors import SpecError
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken

STATES, LENGTH = 9, 5


def network(**options) -> MdlmDiT:
    torch.manual_seed(0)
    made = MdlmDiT(LENGTH, STATES, width=16, depth=3, heads=2, conditioning_width=8, **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(STATES, (batch, LENGTH), generator=generator), torch.rand(batch, generator=generator)


@pytest.mark.parametrize("start", [0, 1, 2])
def test_components_are_what_each_lambda_gives_alone(start):
    backbone, (x, t) = network(), inputs()
    head = SinusoidalToken(1, backbone, start=start)
    lam = torch.rand(2, 3, 1, generator=torch.Generator().manual_seed(2))
    together = backbone(x, t, None, head.context(lam)).unflatten(0, (2, 3))
    for m in range(3):
        alone = backbone(x, t, None, head.context(lam[:, m : m + 1]))
        torch.testing.assert_close(together[:, m], alone, rtol=1e-5, atol=1e-5)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


def test_blocks_before_start_run_once_an_example():
    backbone, (x, t) = network(), inputs()
    sizes = []
    for block in backbone.blocks:
        block.register_forward_hook(lambda module, given, result: sizes.append(tuple(result.shape[:2])))
    backbone(x, t, None, SinusoidalToken(1, backbone, start=2).context(torch.rand(2, 4, 1)))
    assert sizes == [(2, LENGTH), (2, LENGTH), (8, LENGTH + 1)]


def test_an_embedding_joins_the_conditioning():
    backbone, (x, t) = network(), inputs()
    embedding = torch.randn(2 * 3, backbone.embedding_width, generator=torch.Generator().manual_seed(3))
    h = backbone(x, t, None, Context(components=3, embedding=embedding))
    assert h.shape == (6, LENGTH, 16)
    assert (h[0] - h[1]).abs().max() > 1e-3
    without = backbone(x, t, None, Context(components=3, embedding=torch.zeros_like(embedding)))
    torch.testing.assert_close(without[::3], backbone(x, t), rtol=1e-5, atol=1e-5)


def test_time_counts_only_where_it_is_asked_for():
    x, t = inputs()
    blind, seeing = network(), network(time_conditioning=True)
    assert torch.equal(blind(x, t), blind(x, t / 2))
    assert (seeing(x, t) - seeing(x, t / 2)).abs().max() > 1e-4
    torch.testing.assert_close(seeing.sigma(t), -torch.log1p(-0.999 * t))
    on_grid = network(time_conditioning=True, conditioning_grid=4).sigma(torch.tensor([0.3, 0.5]))
    torch.testing.assert_close(on_grid, -torch.log1p(-0.999 * torch.tensor([0.5, 0.75])))


def test_position_matters_through_rotation():
    backbone = network()
    x = torch.tensor([[1, 2, 3, 4, 5]])
    h = backbone(x, torch.zeros(1))
    assert (h.flip(1) - backbone(x.flip(1), torch.zeros(1))).abs().max() > 1e-3


def test_the_readout_is_linear_and_untied():
    backbone, (x, t) = network(), inputs()
    h = backbone(x, t)
    rows = h.flatten(0, 1)[:, None]
    logits = backbone.readout(rows, torch.arange(LENGTH).repeat(2), x.flatten())
    again, weight = backbone.readout(rows, reduction=lambda h, w, b: (h @ w.T + b, w))
    torch.testing.assert_close(logits, again)
    assert weight is not backbone.vocab_embed.embedding


def test_bfloat16_keeps_positions_apart():
    backbone = network().bfloat16()
    x, t = inputs()
    assert backbone(x, t).dtype == torch.bfloat16
    torch.testing.assert_close(backbone(x, t).float(), network()(x, t), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("options", [{"num_classes": 3}, {"noise": "cubic"}])
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(SpecError):
        network(**options)
