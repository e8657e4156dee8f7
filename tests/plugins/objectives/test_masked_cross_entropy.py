"""MaskGIT's loss."""

import math

import pytest
import torch

from di4c.contracts import Batch, Draws, Raw, Teacher
from di4c.errors import SpecError
from di4c_plugins.backbones.maskgit import MaskGITBackbone
from di4c_plugins.objectives.masked_cross_entropy import MaskedCrossEntropy
from di4c_plugins.processes.maskgit import MaskGITProcess

D, CODES = 6, 5


class Tiny(Teacher):
    def __init__(self):
        torch.manual_seed(0)
        self.process, self.parameterisation, self.num_positions = MaskGITProcess(CODES), Raw(), D
        sizes = dict(width=16, depth=1, heads=2, mlp_width=16, dropout=0.0)
        self.backbone = MaskGITBackbone(D, CODES + 1, num_classes=2, **sizes)


X_0 = torch.randint(CODES, (8, D), generator=torch.Generator().manual_seed(1))
COND = torch.arange(8) % 2


def loss(draws=None, **options):
    objective = MaskedCrossEntropy(Tiny(), **options).eval()
    return objective(Batch(X_0, COND), draws or Draws(2, count=8), 0)["loss"]


def test_an_untrained_network_pays_log_s_at_every_counted_position():
    everything = loss(label_smoothing=0.0, label_dropout=0.0)
    masked_only = loss(label_smoothing=0.0, label_dropout=0.0, visible=False)
    uniform = torch.full((8,), D * math.log(CODES + 1))
    torch.testing.assert_close(everything, uniform, rtol=0.05, atol=0)
    assert (masked_only <= everything + 1e-4).all() and masked_only.sum() < everything.sum()


def test_smoothing_mixes_in_the_mean_over_states():
    objective = MaskedCrossEntropy(Tiny(), label_smoothing=0.3, label_dropout=0.0)
    with torch.no_grad():
        objective.model.bias.normal_(generator=torch.Generator().manual_seed(3))
    draws = Draws(4, count=8)
    got = objective(Batch(X_0, COND), draws, 0)["loss"]
    x_t = objective.process.corrupt(X_0, draws.child("t").uniform(), draws.child("x_t"))
    rows = torch.arange(8 * D)
    h = objective.model(x_t, torch.ones(8), COND).flatten(0, 1)[:, None]
    logits = objective.model.readout(h, rows % D, x_t.flatten()).squeeze(1)
    expected = torch.nn.functional.cross_entropy(logits, X_0.flatten(), label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(got, expected.view(8, D).sum(1))


def test_two_halves_of_a_batch_give_the_whole():
    whole = loss()
    objective = MaskedCrossEntropy(Tiny()).eval()
    halves = [
        objective(Batch(X_0[first : first + 4], COND[first : first + 4]), Draws(2, first=first, count=4), 0)["loss"]
        for first in (0, 4)
    ]
    torch.testing.assert_close(torch.cat(halves), whole)


def test_a_dropout_outside_0_1_is_an_error():
    with pytest.raises(SpecError, match=r"objective.label_dropout: in \[0, 1\]; found 2"):
        MaskedCrossEntropy(Tiny(), label_dropout=2)
