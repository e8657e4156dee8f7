"""A training step of the text system is the same on CPU and GPU, and the same each time."""

import pytest
import torch

from di4c.contracts import Batch, Draws
from di4c.losses import inputs
from di4c_plugins.latents.categorical import Categorical
from tests.gpu.cases import inputs_of, text_objective, with_tokens
from tests.losses.test_objective import batch, make
from tests.mixture.test_equal_inputs import TIMES

SIZES = {"cuda": {"positions": 32, "states": 5000, "components": 8, "width": 64}, "cpu": {}}


def step(objective, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss [B] and gradients on the CPU."""
    objective.zero_grad()
    loss = objective.loss(inputs)["loss"]
    loss.mean().backward()
    return loss.detach().cpu(), {
        name: p.grad.cpu().clone() for name, p in objective.named_parameters() if p.grad is not None
    }


def data(sizes: dict) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(sizes.get("states", 40) - 1, (2, sizes.get("positions", 8)), generator=generator)


@pytest.mark.parametrize(
    ("head", "x_u"), [("token", "each"), ("adaln", "shared"), ("late", "shared"), ("readout", "shared")]
)
def test_a_step_is_that_of_the_cpu(head, x_u, device, record_property):
    """float32; the target's tokens are given, since a draw may differ where rounding decides: how often is reported."""
    sizes = SIZES[device]
    here, there = (
        text_objective("cpu", head=head, x_u=x_u, **sizes),
        text_objective(device, head=head, x_u=x_u, **sizes),
    )
    on_cpu, on_device = inputs_of(here, data(sizes), "cpu"), inputs_of(there, data(sizes), device)
    assert torch.equal(on_cpu.student.x_t, on_device.student.x_t.cpu())
    different = float((on_cpu.target_samples != on_device.target_samples.cpu()).float().mean())
    record_property("differing_tokens", different)
    assert different < 0.01
    (wanted, gradients), (loss, found) = step(here, on_cpu), step(there, with_tokens(on_device, on_cpu.target_samples))
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-4)
    assert set(found) == set(gradients)
    whole = torch.cat([g.flatten() for g in gradients.values()]).norm()
    for name, gradient in gradients.items():
        assert (found[name] - gradient).norm() < 1e-4 * whole, name


@pytest.mark.parametrize("head", ["token", "late"])
def test_the_loss_has_the_same_bits_each_time(head, device):
    """Given what it looks at; networks are as deterministic as torch is told to be."""
    objective = text_objective(device, head=head, **SIZES[device])
    losses = []
    for _ in range(2):
        inputs = inputs_of(objective, data(SIZES[device]), device)
        features = inputs.student.features
        features.retain_grad()
        loss = objective.loss(inputs)["loss"]
        loss.mean().backward()
        losses.append((inputs.target_samples, loss.detach(), features.grad))
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


def test_a_step_in_bf16_is_near_that_of_float32(device):
    """The data term; what is drawn for the other one may differ."""
    wide, narrow = (text_objective(device, **SIZES[device]) for _ in range(2))
    narrow.bfloat16(), narrow.teacher.network.bfloat16()
    wanted, found = (one.loss(inputs_of(one, data(SIZES[device]), device)) for one in (wide, narrow))
    assert found["loss"].dtype == wanted["loss"].dtype and found["data_correlated"].isfinite().all()
    torch.testing.assert_close(
        found["data_correlated"].double(), wanted["data_correlated"].double(), rtol=0.03, atol=0.3
    )
    found["loss"].mean().backward()
    assert all(p.grad.isfinite().all() for p in narrow.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", ["readout", "late"])
def test_equal_inputs_once_are_each_evaluated(head, dtype, device, monkeypatch):
    """Four atoms, enumerated, two thirds of the examples at t = 1: losses and gradients; in bf16 they are near each other."""
    latent = Categorical(atoms=4, weights=[0.1, 0.2, 0.3, 0.4])
    objective = make(head, "monte-carlo", latent, time=TIMES, components=4, targets=4).to(device, dtype)
    objective.teacher.to(device)
    objective.teacher.network.to(dtype)
    of, draws = batch(12), Draws(5, count=12, device=device)
    of = Batch(of.x_0.to(device), None if of.cond is None else of.cond.to(device))
    found = []
    for shared in (True, False):
        if not shared:
            monkeypatch.setattr(inputs, "equal_inputs", lambda *_: None)
        objective.zero_grad()
        loss = objective(of, draws, 0)["loss"].mean()
        loss.backward()
        found.append((loss.detach().double(), torch.cat([p.grad.double().flatten() for p in objective.parameters()])))
    (loss, gradient), (wanted, truth) = found
    close = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(loss, wanted, rtol=close, atol=close)
    assert (gradient - truth).norm() < close * truth.norm()
