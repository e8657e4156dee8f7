"""train.deterministic: torch's deterministic algorithms while a run lasts, and what they refuse on CUDA done otherwise."""

import os

import pytest
import torch

from di4c.draws import Draws, _by_doubling, categorical
from di4c.engine.determinism import WORKSPACE, deterministic
from di4c.errors import SpecError
from tests.losses.test_objective import batch, make


def state() -> tuple:
    cudnn = torch.backends.cudnn
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *algorithms, cudnn.deterministic, cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    changed = {k: v for k, v in os.environ.items() if k != WORKSPACE}
    monkeypatch.setattr(os, "environ", changed)
    return changed


def test_it_lasts_as_long_as_the_run_and_leaves_what_was_set(environment):
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        before = state()
        with pytest.raises(KeyError), deterministic(True):
            assert state() == (True, False, True, False, False) and environment[WORKSPACE] == ":4096:8"
            raise KeyError
        assert state() == before
        with deterministic(False):
            assert state() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_workspace_of_the_users_is_kept_or_refused(environment):
    environment[WORKSPACE] = ":16:8"
    with deterministic(True):
        assert environment[WORKSPACE] == ":16:8"
    environment[WORKSPACE] = ":0:0"
    before = state()
    with pytest.raises(SpecError, match="CUBLAS_WORKSPACE_CONFIG=:0:0.*allowed: :4096:8, :16:8"), deterministic(True):
        pass
    assert state() == before


@pytest.mark.parametrize("head", ["late", "token", "readout"])
def test_a_step_and_its_diagnostics_have_deterministic_algorithms(head, environment):
    objective = make(head)
    plain = objective(batch(), Draws(3, count=6), 0)["loss"]
    with deterministic(True):
        loss = objective(batch(), Draws(3, count=6), 0)["loss"]
        loss.mean().backward()
        objective.eval()
        assert objective.diagnostics(batch(), Draws(4, count=6))
    assert torch.equal(loss, plain)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 257, 1000])
def test_sums_by_doubling_are_cumulative_sums_that_a_mass_of_0_leaves_alone(size):
    masses = Draws(1, count=20).uniform(size)
    masses = torch.where(masses < 0.5, 0.0, masses**9)
    sums = _by_doubling(masses)
    torch.testing.assert_close(sums, masses.cumsum(-1), rtol=1e-14, atol=0)
    assert (sums.diff(dim=-1) >= 0).all() and (sums[:, 1:] == sums[:, :-1])[masses[:, 1:] == 0].all()


def test_draws_by_doubling_are_the_draws(monkeypatch):
    probs, uniform = Draws(1, count=40).uniform(700).float(), Draws(2, count=40).uniform(9)
    expected = categorical(probs, uniform)
    monkeypatch.setattr("di4c.draws.cumulated", _by_doubling)
    assert torch.equal(categorical(probs, uniform), expected)
