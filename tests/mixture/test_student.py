"""The mixture student: heads, sharing of the trunk, denoisers."""

import pytest
import torch

from di4c.draws import Draws
from di4c.mixture.student import atoms_denoiser, mixture_denoiser, product_denoiser
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from tests.systems import HEADS, tiny_student, tiny_teacher

B, M = 3, 4


def scene(teacher, count=B):
    x_t = teacher.process.corrupt(
        Draws(0, count=count).integers(5, 6), torch.full((count,), 0.6), Draws(1, count=count)
    )
    return x_t, torch.full((count,), 0.6, dtype=torch.float64), torch.arange(count) % 3


@pytest.mark.parametrize("head", HEADS)
def test_components_equal_separate_runs_and_differ(head):
    teacher = tiny_teacher()
    student = tiny_student(teacher, head)
    x_t, t, cond = scene(teacher)
    lam = Uniform().sample(M, Draws(2, count=B))
    rows = torch.arange(B * 6)
    together = student.predict(x_t, t, cond, lam).log_probs(rows)
    assert together.shape == (B * 6, M, 6)
    for m in range(M):
        alone = student.predict(x_t, t, cond, lam[:, m : m + 1]).log_probs(rows)
        torch.testing.assert_close(together[:, m : m + 1], alone, rtol=1e-4, atol=1e-4)
    assert torch.allclose(together.exp().sum(-1), torch.ones(B * 6, M), atol=1e-5)
    masked = (x_t == 5).flatten()
    assert (together[masked].exp().std(dim=1) > 1e-4).any(), "components must differ at the start"


@pytest.mark.parametrize(("head", "trunk_batch"), [("late", B), ("readout", B), ("adaln", B * M), ("token", B * M)])
def test_late_and_readout_heads_share_the_trunk(head, trunk_batch):
    teacher = tiny_teacher()
    student = tiny_student(teacher, head)
    seen = []
    student.backbone.blocks[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    x_t, t, cond = scene(teacher)
    student.predict(x_t, t, cond, Uniform().sample(M, Draws(2, count=B)))
    assert seen == [trunk_batch]


def test_visible_positions_are_carried_over_and_the_mask_is_forbidden():
    teacher = tiny_teacher()
    x_t, t, cond = scene(teacher)
    log_p = teacher.predict(x_t, t, cond).log_p0()
    visible = x_t != 5
    assert torch.equal(log_p.argmax(-1)[visible], x_t[visible])
    assert (log_p[..., 5].exp() == 0).all()


def test_product_denoiser_has_the_mixtures_marginals():
    teacher = tiny_teacher()
    student = tiny_student(teacher, "late", latent_dim=4)
    latent = Categorical(atoms=4, weights=[1.0, 2.0, 3.0, 4.0])
    x_t, t, cond = scene(teacher)
    product = product_denoiser(student, latent, Draws(0, count=B))(x_t, t, cond).log_p0().exp()
    components = student.predict(x_t, t, cond, torch.eye(4).expand(B, 4, 4)).log_probs(torch.arange(B * 6)).exp()
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    expected = torch.einsum("m,pms->ps", weights, components).unflatten(0, (B, 6))
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-6)


def test_a_denoiser_draws_a_fresh_lambda_at_every_call():
    teacher = tiny_teacher()
    student = tiny_student(teacher, "adaln")
    x_t, t, cond = scene(teacher)
    denoise = mixture_denoiser(student, Uniform(), Draws(0, count=B))
    assert not torch.equal(denoise(x_t, t, cond).log_p0(), denoise(x_t, t, cond).log_p0())


def test_one_atom_is_a_product_model():
    teacher = tiny_teacher()
    student = tiny_student(teacher, "adaln")
    x_t, t, cond = scene(teacher)
    denoise = atoms_denoiser(student, *Uniform().discretised(1, Draws(3)), Draws(0, count=B))
    assert torch.equal(denoise(x_t, t, cond).log_p0(), denoise(x_t, t, cond).log_p0())
