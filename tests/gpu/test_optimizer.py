"""What rests in a step is held still by the optimizer's own kernel on the device."""

import numpy as np
import torch

from di4c.engine.optimizer import STILL, STILL_ON_CUDA, set_learning_rate


def test_a_resting_group_keeps_its_weights_and_moments(device):
    """From the first step on, whose moments are zero, and after steps that have filled them."""
    parameter = torch.nn.Parameter(torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(device))
    group = {"params": [parameter], "lr_multiplier": 1.0, "own_betas": (0.9, 0.99), "apart": False}
    optimizer = torch.optim.AdamW([group], lr=0.0, weight_decay=0.1, fused=True)

    def step(resting: bool) -> None:
        parameter.grad = torch.zeros_like(parameter) if resting else torch.ones_like(parameter)
        set_learning_rate(optimizer, 1e-2, resting=resting, on_cuda=device == "cuda")
        optimizer.step()

    for before in (0, 3):
        for _ in range(before):
            step(resting=False)
        weights = parameter.detach().clone()
        moments = [optimizer.state[parameter][name].clone() for name in ("exp_avg", "exp_avg_sq")] if before else [0, 0]
        for _ in range(3):
            step(resting=True)
        assert torch.equal(parameter, weights)
        for name, moment in zip(("exp_avg", "exp_avg_sq"), moments, strict=True):
            kept = optimizer.state[parameter][name]
            torch.testing.assert_close(kept, torch.zeros_like(kept) if not before else moment, rtol=1e-6, atol=0.0)
    step(resting=False)
    assert parameter.isfinite().all() and not torch.equal(parameter, weights)


def test_a_beta_that_holds_still_is_below_one_in_the_precision_it_is_taken_in():
    assert STILL < 1 and np.float32(STILL) == 1 and np.float32(STILL_ON_CUDA) == STILL_ON_CUDA < 1
