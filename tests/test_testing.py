"""The contract checks pass for the built-ins and fail for what breaks a contract."""

import math
from dataclasses import replace

import pytest
import torch

from di4c import testing
from di4c.config.registry import Registry
from di4c.contracts import AffineOutputHead, Backbone, Draws, Generation, Metric, Parameterisation, Pipeline
from di4c.losses.pretraining import NELBO
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.datasets.digits import Digits
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.gaussian import Gaussian
from di4c_plugins.latents.product_categorical import ProductCategorical
from di4c_plugins.latents.proposals import GaussianProposal
from di4c_plugins.latents.unit_cube import Sobol, Stratified, Uniform
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.posteriors.transformer import Transformer
from di4c_plugins.posteriors.trunk import Trunk
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from di4c_plugins.times.samplers import UniformTime
from tests.systems import HEADS, tiny_teacher


def test_the_first_system_holds_its_contracts():
    teacher = tiny_teacher()
    testing.check_teacher(teacher, num_classes=3)
    testing.check_backbone(teacher.backbone, num_positions=6, num_states=6, num_classes=3)
    testing.check_sampler(Ancestral(teacher.process), teacher)


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    teacher = tiny_teacher()
    backbone = teacher.student_backbone()
    testing.check_head(HEADS[name](2, backbone), backbone, latent_dim=2, teacher=teacher)


LATENTS = [
    Uniform(),
    Stratified(dim=2),
    Sobol(),
    Gaussian(dim=3),
    Gaussian(dim=2, points="sobol"),
    Categorical(atoms=6),
    Categorical(atoms=9),
    ProductCategorical(factors=4, values=3),
    ProductCategorical(factors=2, values=3),
]


@pytest.mark.parametrize("latent", LATENTS, ids=lambda x: type(x).__name__)
def test_latents(latent):
    testing.check_latent(latent)


@pytest.mark.parametrize(
    "latent", [Gaussian(dim=3), ProductCategorical(factors=4, values=3)], ids=lambda x: type(x).__name__
)
def test_posteriors(latent):
    teacher = tiny_teacher(num_classes=None)
    options = {"latent": latent, "num_positions": 6, "num_states": teacher.process.num_states}
    testing.check_posterior(Transformer(latent, teacher.process, 6, width=8, depth=1, heads=2), **options)
    testing.check_posterior(Trunk(latent, teacher, 6, width=8), **options)


def test_a_posterior_that_mixes_its_samples_is_caught():
    class Mixing(Transformer):
        def forward(self, x, x_t, t, cond=None):
            found = super().forward(x, x_t, t, cond)
            return found - found.mean(1, keepdim=True)

    latent = Gaussian(dim=3)
    posterior = Mixing(latent, tiny_teacher().process, 6, width=8, depth=1, heads=2)
    with pytest.raises(AssertionError, match="other examples or samples"):
        testing.check_posterior(posterior, latent=latent, num_positions=6, num_states=6)


def test_a_proposal_with_a_wrong_density_is_caught():
    class Doubled(GaussianProposal):
        def draw(self, components, draws):
            found = super().draw(components, draws)
            return replace(found, log_ratio=2 * found.log_ratio)

    class Wrong(Gaussian):
        def proposal(self, parameters):
            return Doubled(parameters, self._cube.points)

    with pytest.raises(AssertionError, match="E_q p/q must be 1"):
        testing.check_latent(Wrong(dim=2))


@pytest.mark.parametrize("name", [target.name for target in Registry.default().targets("loss_estimators")])
def test_estimators(name):
    testing.check_estimator(Registry.default().resolve("loss_estimators", name)())


def test_an_estimator_that_forgets_to_divide_by_the_number_of_components_is_caught():
    class Sum(MonteCarlo):
        def __call__(self, statistics):
            nll, zero = super().__call__(statistics)
            return nll - math.log(statistics.joint.shape[-1]), zero

    with pytest.raises(AssertionError, match="equal components"):
        testing.check_estimator(Sum())


def test_digits_and_pretraining():
    data = Digits()
    testing.check_dataset(data)
    teacher = tiny_teacher(positions=64, data_states=17, num_classes=10)
    testing.check_objective(NELBO(teacher, time=UniformTime(low=0.1)), data)


def test_a_process_that_draws_by_itself_is_caught():
    class Careless(Absorbing):
        def corrupt(self, x_0, t, draws):
            return torch.where(torch.rand(x_0.shape) < t[:, None], self.mask_index, x_0)

    with pytest.raises(AssertionError, match="draws"):
        testing.check_process(Careless(3))


def test_a_posterior_that_reveals_too_early_is_caught():
    class Hasty(Absorbing):
        def posterior(self, x_t, prediction, t, s, draws):
            return super().posterior(x_t, prediction, t, torch.zeros_like(s), draws)

    with pytest.raises(AssertionError, match="posterior"):
        testing.check_process(Hasty(3))


def test_a_teacher_that_does_not_normalise_is_caught():
    class Unnormalised(Parameterisation):
        def log_probs(self, logits, x_t):
            return logits

        def active(self, x_t):
            return torch.ones_like(x_t, dtype=torch.bool)

    teacher = tiny_teacher()
    teacher.parameterisation = Unnormalised()
    with pytest.raises(AssertionError, match="sum to 1"):
        testing.check_teacher(teacher)


def test_heads_that_start_equal_are_caught():
    teacher = tiny_teacher()
    backbone = teacher.student_backbone()
    head = HEADS["adaln"](1, backbone)
    torch.nn.init.zeros_(head.project.weight)
    with pytest.raises(AssertionError, match="saddle"):
        testing.check_head(head, backbone, latent_dim=1, teacher=teacher)


class Twice(Pipeline):
    """Trains a run, and another one if `note` was not yet written."""

    def __init__(self, note: str):
        self.note = note

    def planned(self, spec):
        return {"first": spec}

    def run(self, runs):
        if runs.read("note") is None:
            runs.write(self.note, "begun")
            runs.train("first", runs.spec)
        runs.train("second", runs.spec)
        return "first"


def test_a_pipeline_that_forgets_what_a_kill_has_cut_off_is_caught():
    spec = {"train": {"run": "x"}}
    testing.check_pipeline(Twice("other note"), spec, {})
    with pytest.raises(AssertionError, match="killed at call 2 and run again, it ends otherwise"):
        testing.check_pipeline(Twice("note"), spec, {})


class Mixing(DiT):
    """Multiplies float32 times with its weights, whatever type these have."""

    def __init__(self):
        super().__init__(6, 6, width=16, depth=1, heads=2)
        self.of_time = torch.nn.Linear(1, 16)

    def forward(self, x_t, t, cond=None, context=None):
        return super().forward(x_t, t, cond, context) + self.of_time(t.float()[:, None])[:, None]


class Coarse(DiT):
    """Tells tokens apart by a number that bfloat16 rounds away."""

    def forward(self, x_t, t, cond=None, context=None):
        h = super().forward(x_t, t, cond, context)
        return h * (1 - 4e3 * ((1 + 1e-4 * x_t[..., None].to(h)) - 1))


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        (Mixing(), "must take float64 times"),
        (Coarse(6, 6, width=16, depth=1, heads=2), "differ by .* in total variation"),
    ],
    ids=["fails", "drifts"],
)
def test_a_backbone_that_does_not_work_in_bfloat16_is_caught(backbone, told):
    torch.manual_seed(0)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    process = Absorbing(5)
    teacher = DenoiserTeacher(process, 6, backbone=backbone, parameterisation=Subs(process))
    with pytest.raises(AssertionError, match=told):
        testing.check_teacher(teacher)


class Newcomer(Backbone):
    """What a newcomer writes, with one mistake at a time."""

    def __init__(self, *, width=8, head=None, dropout=0.0):
        super().__init__()
        if width:
            self.width = width
        self.tokens = torch.nn.Embedding(6, 8)
        self.block = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)
        if head is not None:
            self.readout = head

    def forward(self, x_t, t, cond=None, context=None):
        return self.block(self.tokens(x_t))


MISTAKES = {
    "no width": (Newcomer(width=0, head=AffineOutputHead(8, 6)), "Newcomer sets no `width`"),
    "no readout": (Newcomer(), "Newcomer has no child `readout`"),
    "a linear layer": (
        Newcomer(head=torch.nn.Linear(8, 6)),
        "the `readout` of Newcomer, Linear, is not called as readout",
    ),
    "dropout of attention": (Newcomer(head=AffineOutputHead(8, 6), dropout=0.5), "self_attn.dropout = 0.0"),
    "another width": (Newcomer(width=4, head=AffineOutputHead(8, 6)), "features must be"),
}


@pytest.mark.parametrize(("backbone", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_network_is_told_by_the_teachers_check(backbone, told):
    process = Absorbing(5)
    with pytest.raises(AssertionError, match=told):
        testing.check_teacher(DenoiserTeacher(process, 6, backbone=backbone, parameterisation=Subs(process)))


def test_a_right_network_passes_and_a_teacher_without_an_attribute_does_not():
    process, backbone = Absorbing(5), Newcomer(head=AffineOutputHead(8, 6))
    teacher = DenoiserTeacher(process, 6, backbone=backbone, parameterisation=Subs(process))
    testing.check_teacher(teacher)
    del teacher.parameterisation
    with pytest.raises(
        AssertionError, match="DenoiserTeacher sets no parameterisation; a teacher's constructor sets process"
    ):
        testing.check_teacher(teacher)


class Loose(Uniform):
    """Atoms by torch's global generator: every rank has its own."""

    def discretised(self, atoms, draws):
        return torch.rand(atoms, 1), torch.full((atoms,), 1 / atoms)


class Shifted(Metric):
    """Numbers that change from call to call, or a guard that is not there."""

    def __init__(self, shift=0.0, guards=()):
        self.value, self.shift, self.guards = 0.0, shift, frozenset(guards)

    def __call__(self, generation):
        self.value += self.shift
        return {"value": self.value}


def test_draws_of_ones_own_are_caught():
    with pytest.raises(AssertionError, match="discretised must draw from `draws` alone"):
        testing.check_latent(Loose())
    generation = Generation(torch.ones(2, 3, dtype=torch.int64), None, 1, None, None, None, Draws(0))
    testing.check_metric(Shifted(guards=["value"]), generation)
    with pytest.raises(AssertionError, match="the same of the same generation"):
        testing.check_metric(Shifted(1.0), generation)
    with pytest.raises(AssertionError, match="`guards` names other"):
        testing.check_metric(Shifted(guards=["other"]), generation)
