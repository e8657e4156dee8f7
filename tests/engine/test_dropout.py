"""Dropout masks belong to examples."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from di4c.engine.dropout import ExampleDropout, Examples, example_mask, insert_example_dropout


def test_masks_do_not_depend_on_how_the_batch_is_split():
    whole = example_mask(Examples(2**33 + 5, 8), 40, 0.3, 17, torch.device("cpu"))
    halves = [example_mask(Examples(2**33 + 5 + i, 4), 40, 0.3, 17, torch.device("cpu")) for i in (0, 4)]
    assert torch.equal(whole, torch.cat(halves))


def test_masks_have_the_rate_and_are_independent():
    """4 standard errors of a mean over 2·10⁶ independent draws; neighbours, calls and examples are uncorrelated."""
    size, p = 20000, 0.1
    masks = torch.stack([example_mask(Examples(0, 50), size, p, key, torch.device("cpu")) for key in (1, 2)]).double()
    error = (p * (1 - p) / masks.numel()) ** 0.5
    assert abs(masks.mean() - (1 - p)) < 4 * error
    assert (masks.mean(-1) - (1 - p)).abs().max() < 5 * (p * (1 - p) / size) ** 0.5
    centred = masks - (1 - p)
    for a, b in ((centred[0], centred[1]), (centred[:, 1:], centred[:, :-1]), (centred[..., 1:], centred[..., :-1])):
        assert abs((a * b).mean()) < 4 * p * (1 - p) / a.numel() ** 0.5


def test_rates_near_0_and_1_are_met():
    for p, kept in ((1e-9, 1.0), (0.5, 0.5), (1 - 1e-9, 0.0)):
        mask = example_mask(Examples(0, 2), 10_001, p, 3, torch.device("cpu"))
        assert mask.shape == (2, 10_001) and abs(mask.double().mean() - kept) < 0.02


def test_it_scales_keeps_nothing_back_and_repeats_under_checkpointing():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))
    examples = insert_example_dropout(model)
    examples.first, examples.count = 3, 4
    assert type(model[1]) is ExampleDropout and model.state_dict().keys() == {"0.weight", "0.bias"}
    x = torch.randn(8, 5, 6)
    gradients = []
    for run in (model, lambda v: checkpoint(model, v, use_reentrant=False)):
        torch.manual_seed(0)
        model.zero_grad()
        y = run(x)
        y.square().sum().backward()
        gradients.append(model[0].weight.grad.clone())
    assert torch.equal(*gradients)
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * model[0](x)[kept])
    model.eval()
    assert torch.equal(model(x), model[0](x))
