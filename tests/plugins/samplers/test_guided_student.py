"""Classifier-free guidance of a mixture student by itself: both passes see the same λ."""

import pytest
import torch

from di4c.contracts import Draws, Raw
from di4c.mixture.student import MixtureStudent, atoms_denoiser, mixture_denoiser, product_denoiser
from di4c_plugins.backbones.maskgit import MaskGITBackbone
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.processes.maskgit import MaskGITProcess
from di4c_plugins.samplers.maskgit import MaskGITSampler

D, STATES = 9, 6
PROCESS = MaskGITProcess(STATES)


@pytest.fixture
def student():
    torch.manual_seed(0)
    backbone = MaskGITBackbone(D, STATES + 1, num_classes=3, width=16, depth=2, heads=2, mlp_width=32, dropout=0.0)
    head = SinusoidalToken(1, backbone, features=16, hidden=16)
    return MixtureStudent(backbone, head, parameterisation=Raw(), num_states=STATES + 1).eval()


def denoisers(student, seed):
    draws = Draws(seed=seed, count=2)
    atoms, weights = Uniform().discretised(4, Draws(seed=9))
    return {
        "inf": mixture_denoiser(student, Uniform(), draws),
        "atoms": atoms_denoiser(student, atoms, weights, draws),
        "product": product_denoiser(student, Uniform(), draws),
    }


@pytest.mark.parametrize("law", ["inf", "atoms", "product"])
@torch.no_grad()
def test_copies_of_an_example_share_its_lambda(student, law):
    x_t = torch.full((2, D), PROCESS.mask_index)
    t, cond = torch.ones(2), torch.tensor([0, 1])
    once = denoisers(student, 3)[law](x_t, t, cond).log_p0()
    twice = denoisers(student, 3)[law](x_t.repeat(2, 1), t.repeat(2), torch.cat([cond, cond])).log_p0()
    torch.testing.assert_close(twice, once.repeat(2, 1, 1))
    assert (once[0] - once[1]).abs().max() > 1e-4


def test_a_guided_student_samples_reproducibly(student):
    sampler = MaskGITSampler(PROCESS, guidance=3.0)
    x_1, cond = torch.full((2, D), PROCESS.mask_index), torch.tensor([0, 1])
    first = sampler.sample(denoisers(student, 4)["inf"], x_1, 3, cond, Draws(seed=5, count=2))
    again = sampler.sample(denoisers(student, 4)["inf"], x_1, 3, cond, Draws(seed=5, count=2))
    assert torch.equal(first, again) and (first < STATES).all()
