import torch

from di4c.contracts import Draws
from di4c.evaluation.models import student_model
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from tests.systems import tiny_student, tiny_teacher

TEACHER = tiny_teacher()
BATCH = 3
X_T = torch.full((BATCH, 6), TEACHER.process.mask_index)
T = torch.ones(BATCH, dtype=torch.float64)
COND = torch.tensor([0, 1, 2])
ROWS = torch.arange(X_T.numel())


def table(prediction):
    """p(x_0^d | x_t; λ_m): [B·D, M, S]."""
    return prediction.log_probs(ROWS).exp()


def components(latent, size, num=8, seed=0):
    student = tiny_student(TEACHER, latent_dim=latent.dim)
    model = student_model(student, latent, size, Draws(seed))
    return model.components(X_T, T, COND, Draws(seed, count=BATCH), num)


def test_k_atoms_are_the_same_for_every_sequence_and_move_with_the_seed():
    latent = Uniform()
    model = student_model(tiny_student(TEACHER), latent, 4, Draws(0))
    assert model.atoms.shape == (4, 1)
    assert torch.equal(model.atoms, student_model(tiny_student(TEACHER), latent, 4, Draws(0)).atoms)
    assert not torch.equal(model.atoms, student_model(tiny_student(TEACHER), latent, 4, Draws(1)).atoms)
    assert components(latent, 4).shape == (BATCH, 4, 6)


def test_one_atom_is_a_product_model():
    model = student_model(tiny_student(TEACHER), Uniform(), 1, Draws(0))
    first, second = (model.denoiser(Draws(seed, count=BATCH))(X_T, T, COND) for seed in (1, 2))
    assert torch.equal(table(first), table(second))


def test_the_law_gives_every_sequence_and_call_a_fresh_component():
    denoiser = student_model(tiny_student(TEACHER), Uniform(), "inf", Draws(0)).denoiser(Draws(1, count=BATCH))
    first, second = table(denoiser(X_T, T, None)), table(denoiser(X_T, T, None))
    assert not torch.allclose(first, second)
    by_sequence = first.unflatten(0, (BATCH, 6))
    assert not torch.allclose(by_sequence[0], by_sequence[1])


def test_a_finite_law_is_enumerated_whatever_number_is_asked_for():
    prediction = components(Categorical(atoms=3, weights=[0.5, 0.3, 0.2]), "inf", num=64)
    assert prediction.shape == (BATCH, 3, 6)
    assert torch.allclose(prediction.log_weights.float().exp(), torch.tensor([0.5, 0.3, 0.2]))


def test_product_is_the_weighted_mean_of_the_components():
    latent = Categorical(atoms=3, weights=[0.5, 0.3, 0.2])
    mixture = table(components(latent, "inf"))
    mean = (mixture * torch.tensor([0.5, 0.3, 0.2])[None, :, None]).sum(1)
    assert torch.allclose(table(components(latent, "product"))[:, 0], mean, atol=1e-6)
    denoiser = student_model(tiny_student(TEACHER, latent_dim=3), latent, "product", Draws(0)).denoiser
    assert torch.allclose(table(denoiser(Draws(5, count=BATCH))(X_T, T, COND))[:, 0], mean, atol=1e-6)


def test_atoms_are_drawn_by_their_weights():
    """Share of sequences on the first of two atoms; tolerance: 5 standard errors of 400 draws."""
    latent = Categorical(atoms=2, weights=[0.8, 0.2])
    student = tiny_student(TEACHER, latent_dim=2)
    model = student_model(student, latent, 2, Draws(0))
    many, t = X_T[:1].expand(400, -1), torch.ones(400, dtype=torch.float64)
    drawn = model.denoiser(Draws(2, count=400))(many, t, None).features
    first = model.components(many[:1], t[:1], None, Draws(0), 2).features[0]
    share = (drawn - first).abs().amax((1, 2)).lt(1e-5).double().mean()
    assert abs(share - 0.8) < 5 * (0.8 * 0.2 / 400) ** 0.5
