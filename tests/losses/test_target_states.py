"""x_u shared by an example's targets or one for each: the same law of every sample, by enumeration; and targets with own λ."""

import itertools

import pytest
import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, Prediction
from di4c.errors import SpecError
from di4c.losses.inputs import draw_inputs
from di4c.losses.objective import Di4C
from di4c.losses.terms import ConsistencyTerm, DataTerm, Gate, TeacherStep
from di4c.mixture.affine import Affine
from di4c.mixture.buffers import Buffers
from di4c.mixture.marginals import Marginals
from di4c.mixture.target import draw_target
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.exact import Exact
from di4c_plugins.estimators.jackknife import Jackknife
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.estimators.own_component import OwnComponent
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.unit_cube import Sobol, Stratified, Uniform
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import TimeGrid
from tests.systems import tiny_student, tiny_teacher

POSITIONS, STATES, T, U = 2, 2, 0.8, 0.4
EVERY_X = torch.tensor(list(itertools.product(range(STATES), repeat=POSITIONS)))
EXAMPLES = 6000


def objective(estimator=None, latent=None, *, positions=POSITIONS, states=STATES, substeps=1, **options) -> Di4C:
    teacher = tiny_teacher(positions, states, num_classes=None)
    latent = latent or Categorical(atoms=2, weights=[0.3, 0.7])
    settings = {"components": 2, "targets": 2, "time": TimeGrid(points=[T])} | options
    return Di4C(
        teacher,
        tiny_student(teacher, "readout", latent.dim),
        latent=latent,
        sampler=Ancestral(teacher.process),
        teacher_step=TeacherStep("constant", size=T - U, substeps=substeps),
        consistency=ConsistencyTerm(1.0, estimator or ControlVariate()),
        **settings,
    )


def all_masked(count: int) -> torch.Tensor:
    return torch.full((count, POSITIONS), STATES)


def exact_law(made: Di4C) -> tuple[torch.Tensor, torch.Tensor]:
    """(P(x), P(x, x') for two targets of λ_1, λ_2 that share x_u), x_t all masked, by summing over x_u: [4], [4, 4]."""
    teacher, t, u = made.teacher, torch.full((9,), T), torch.full((9,), U)
    x_u = torch.tensor(list(itertools.product(range(STATES + 1), repeat=POSITIONS)))
    masked = all_masked(9)
    with torch.no_grad():
        weight = teacher.process.posterior_log_prob(x_u, masked, teacher.predict(masked, t, None), t, u)[:, 0].exp()
        student = made.model.predict(x_u, u, None, torch.eye(2).expand(9, -1, -1))
        log_p = student.log_probs(torch.arange(18)).unflatten(0, (9, POSITIONS))  # [9, D, M, S]
    each = sum(log_p[:, d][:, :, EVERY_X[:, d]] for d in range(POSITIONS)).exp()  # [9, M, 4]
    mixture = torch.einsum("m,umx->ux", torch.tensor([0.3, 0.7]), each)
    return weight @ mixture, torch.einsum("u,ux,uy->xy", weight, each[:, 0], each[:, 1])


def index(x: torch.Tensor) -> torch.Tensor:
    return x @ torch.tensor([STATES, 1])


def scene_of(made: Di4C, count: int = EXAMPLES, seed: int = 0):
    x_0 = torch.zeros(count, made.teacher.num_positions, dtype=torch.long)
    # All positions masked at t, whatever the process draws, so that the exact sum has one x_t.
    made.teacher.process.corrupt = lambda x_0, t, draws: torch.full_like(x_0, made.teacher.process.mask_index)
    return draw_inputs(made.options, made.teacher, made.model, Batch(x_0), Draws(seed, count=count))


def assert_frequencies(found: torch.Tensor, law: torch.Tensor, count: int):
    error = 5 * (law * (1 - law) / count).sqrt() + 1e-4
    assert ((found - law).abs() <= error).all(), (found, law)


@pytest.mark.parametrize("x_u", ["shared", "each"])
def test_every_target_sample_has_the_exact_law(x_u):
    """Both ways: Σ_{x_u} p^ψ(x_u | x_t) Σ_n w_n p^θ(x | x_u; λ_n); they differ in whether two samples of an example share x_u."""
    made = objective(x_u=x_u)
    law, pair = exact_law(made)
    assert abs(float(law.sum()) - 1) < 1e-5
    scene = scene_of(made)
    torch.testing.assert_close(scene.target_weights, torch.tensor([0.3, 0.7], dtype=torch.float64))
    seen = torch.nn.functional.one_hot(index(scene.target_samples), 4).float()  # [B, N, 4]
    assert_frequencies(torch.einsum("bnx,n->x", seen, torch.tensor([0.3, 0.7])) / EXAMPLES, law, EXAMPLES)
    expected_pair = pair if x_u == "shared" else pair.sum(1)[:, None] * pair.sum(0)[None]
    assert_frequencies(torch.einsum("bx,by->xy", seen[:, 0], seen[:, 1]) / EXAMPLES, expected_pair, EXAMPLES)
    q = scene.target.probs(torch.arange(2 * EXAMPLES)).unflatten(0, (EXAMPLES, 2))[..., :STATES]
    marginals = torch.stack([torch.stack([law[EVERY_X[:, d] == s].sum() for s in range(STATES)]) for d in range(2)])
    assert ((q.mean(0) - marginals).abs() <= 5 * q.std(0) / EXAMPLES**0.5 + 1e-4).all()


def test_shared_and_each_have_the_same_expected_loss():
    found = {}
    for x_u in ("shared", "each"):
        made = objective(MonteCarlo(), x_u=x_u)
        with torch.no_grad():
            found[x_u] = made.loss(scene_of(made))["consistency"]
    gap = found["shared"].mean() - found["each"].mean()
    assert abs(float(gap)) < 5 * float((found["shared"].var() + found["each"].var()).sqrt()) / EXAMPLES**0.5
    assert found["each"].var() < found["shared"].var()  # the noise of x_u is averaged too


def test_each_x_u_does_not_depend_on_ranks_and_asks_the_teacher_for_x_t_once():
    made = objective(MonteCarlo(), Uniform(), positions=4, states=3, substeps=2, x_u="each", targets=3)
    asked, predict = [], made.teacher.predict
    made.teacher.predict = lambda x, t, cond: asked.append(len(x)) or predict(x, t, cond)
    x_0 = Draws(1, count=4).integers(3, 4)
    whole = made(Batch(x_0), Draws(0, count=4), 0)["consistency"]
    assert asked == [4, 12]  # B at x_t for all copies, then B·N at the sub-step's own states
    part = made(Batch(x_0[1:]), Draws(0, first=1, count=3), 0)["consistency"]
    torch.testing.assert_close(part, whole[1:], rtol=1e-4, atol=1e-4)


def within_the_readout(marginals: Marginals, rows: Tensor) -> Tensor:
    """q̄ at the rows, from inside a call of the output head and in buffers."""
    prediction = marginals.prediction
    buffers = Buffers.empty(3, 1, prediction.num_states, prediction.features)

    def reduction(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with torch.no_grad():
            return marginals.probs(rows, Affine(weight, bias, prediction.num_states), buffers)

    return prediction.output_head(prediction.features, reduction=reduction)


@pytest.mark.parametrize("keep_bytes", [0, 10**6])
def test_marginals_of_copies_are_their_weighted_mean(keep_bytes):
    """Copies of an example may differ in what is masked, and have fixed one position at different tokens."""
    teacher = tiny_teacher(3, 2, num_classes=None)
    x_u = torch.tensor([[2, 0, 1], [0, 1, 1], [2, 2, 2], [2, 2, 2]])  # two examples of two copies
    prediction = teacher.predict(x_u, torch.full((4,), 0.5), None)
    weights = torch.tensor([0.25, 0.75])
    found = draw_target(prediction, Draws(0, count=4), keep_bytes=keep_bytes, copies=2, copy_weights=weights)
    assert (found.marginals.table is not None) == bool(keep_bytes) and found.samples.shape == (2, 2, 3)
    p = prediction.log_probs(torch.arange(12)).exp()[:, 0].view(2, 2, 3, -1)
    truth = torch.einsum("bnds,n->bds", p, weights).flatten(0, 1)
    torch.testing.assert_close(found.marginals.probs(torch.arange(6)), truth)
    torch.testing.assert_close(within_the_readout(found.marginals, torch.arange(6)), truth)
    fixed = x_u != 2
    assert torch.equal(found.samples.flatten(0, 1)[fixed], x_u[fixed])


@pytest.mark.parametrize("modulated", [False, True])
def test_a_repeated_prediction_is_that_of_repeated_inputs(modulated):
    made = objective(latent=Uniform(), targets=1)
    lam = Draws(0, count=3).uniform(2, 1).float()
    x_t = Draws(1, count=3).integers(3, POSITIONS)
    student = made.model.predict(x_t, torch.full((3,), T), None, lam)
    if not modulated:
        student = Prediction.from_logits(student.log_probs(torch.arange(6)).unflatten(0, (3, 2)).transpose(1, 2), x_t)
    again = student.repeated(2)
    rows = torch.arange(12)
    expected = student.log_probs(torch.arange(6)).unflatten(0, (3, 2)).repeat_interleave(2, 0).flatten(0, 1)
    assert again.shape == (6, 2, 2) and torch.equal(again.x_t, x_t.repeat_interleave(2, 0))
    torch.testing.assert_close(again.log_probs(rows), expected)


def test_own_component_shares_lambda_and_scores_the_samples_at_u():
    made = objective(OwnComponent(), Uniform(), components=3, targets=3)
    scene = scene_of(made, 5)
    x = scene.target_samples
    by_hand = torch.stack([scene.target.prediction.log_prob_of(x[:, n]) for n in range(3)], 1)  # [B, N, M]
    torch.testing.assert_close(scene.target_joint, by_hand.to(scene.target_joint), rtol=1e-4, atol=1e-5)
    terms = made.loss(scene)
    terms["loss"].mean().backward()
    assert terms["loss"].isfinite().all() and any(p.grad is not None for p in made.model.head.parameters())


@pytest.mark.parametrize(
    "law",
    [Stratified(), Sobol(), Gaussian(dim=2, points="sobol"), Categorical(atoms=5)],
    ids=lambda law: type(law).__name__,
)
def test_estimators_of_independent_draws_refuse_laws_whose_draws_depend_on_one_another(law):
    gate = Gate("constant", 1.0)
    with pytest.raises(
        SpecError, match=rf"objective.data.estimator: Jackknife .* latent: {type(law).__name__} .*take a λ sampler"
    ):
        objective(MonteCarlo(), law, data=DataTerm(1.0, Jackknife(), gate))
    with pytest.raises(SpecError, match=r"objective.consistency.estimator: OwnComponent .* latent: "):
        objective(OwnComponent(), law)
    objective(OwnComponent(), law, components=1, targets=1)  # a single draw depends on nothing
    for independent in (Uniform(), Gaussian(dim=2), Categorical(atoms=5, independent=True)):
        objective(OwnComponent(), independent, data=DataTerm(1.0, Jackknife(), gate))


def test_estimators_are_refused_where_they_do_not_apply():
    own, gate = OwnComponent(), Gate("constant", 1.0)
    with pytest.raises(SpecError, match="enumerated; take monte-carlo"):
        objective(own)
    with pytest.raises(SpecError, match="targets = components"):
        objective(own, Uniform(), targets=3)
    with pytest.raises(SpecError, match="targets = components"):
        objective(own, Uniform(), x_u="each")
    with pytest.raises(SpecError, match="it is for objective.consistency"):
        objective(MonteCarlo(), Uniform(), data=DataTerm(1.0, own, gate))
    with pytest.raises(SpecError, match="sums over every λ"):
        objective(Exact(), x_u="each")
    with pytest.raises(SpecError, match="finitely many atoms"):
        objective(latent=Uniform(), components="all")
    assert objective(components="all").options.components == 2
