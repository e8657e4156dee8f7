"""The λ token of the language and VQ-image students."""

import math

import pytest
import torch

from di4c.errors import SpecError
from di4c_plugins.backbones.sinusoid import sinusoid
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken


class Network:
    width, depth, embedding_width = 24, 2, 8


def test_the_sinusoid_has_the_stated_frequencies():
    x = torch.tensor([3.0])
    slowest = sinusoid(x, 8, sine_first=True, inclusive=True)[0, 3]
    assert math.isclose(slowest.item(), math.sin(3 / 10000), rel_tol=1e-5)
    exclusive = sinusoid(x, 8, sine_first=False, inclusive=False)[0]
    assert math.isclose(exclusive[1].item(), math.cos(3 * 10000 ** (-1 / 4)), rel_tol=1e-5)
    assert math.isclose(exclusive[4].item(), math.sin(3), rel_tol=1e-5)


def test_tokens_are_one_a_component_and_differ_between_components():
    head = SinusoidalToken(1, Network(), start=1)
    context = head.context(torch.rand(3, 4, 1, generator=torch.Generator().manual_seed(0)))
    assert context.tokens.shape == (12, 1, 24)
    assert (context.components, context.start) == (4, 1)
    assert (context.tokens[0] - context.tokens[1]).abs().max() > 1e-3


def test_rows_are_in_b_major_order():
    head = SinusoidalToken(2, Network())
    lam = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(1))
    together, alone = head.context(lam).tokens, head.context(lam[1:, 2:]).tokens
    torch.testing.assert_close(together[5], alone[0])


@pytest.mark.parametrize("options", [{"features": 7}, {"start": 2}])
def test_senseless_options_are_refused(options):
    with pytest.raises(SpecError, match="sinusoidal-token"):
        SinusoidalToken(1, Network(), **options)
