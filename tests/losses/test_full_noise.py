"""The data term at t = 1 with examples of its own, and its start by clusters."""

import math

import pytest
import torch
from torch import nn

from di4c.contracts import Batch, Split
from di4c.draws import Draws
from di4c.errors import SpecError
from di4c.losses.clusters import Clusters
from di4c.losses.full_noise import FullNoiseTerm
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.processes.uniform import Uniform as UniformProcess
from tests.losses.test_objective import batch, make

K = 4
ALONE = {"data": None, "consistency": None, "distillation": None}


class Words(Split):
    """Ninety words of six letters: three stems, each with one letter changed at random; the label is the stem's."""

    def __init__(self):
        draws = Draws(1, count=90)
        stems = torch.tensor([[0] * 6, [1] * 6, [2, 3] * 3])
        self.cond = torch.arange(90) % 3
        self.x_0 = stems[self.cond].scatter(1, draws.integers(6)[:, None], draws.child("letter").integers(5)[:, None])

    def __len__(self) -> int:
        return 90

    def batch(self, indices, draws=None) -> Batch:
        return Batch(self.x_0[indices], self.cond[indices])


def objective(term: FullNoiseTerm, latent=None, **options):
    made = make("readout", "monte-carlo", latent or Categorical(atoms=K), full_noise=term, open_split=Words, **options)
    made.prepare(Draws(0, path=("prepare",)))
    return made


def test_it_is_the_exact_likelihood_of_the_data_at_full_noise():
    term = FullNoiseTerm(weight=2.0, ratio=3)
    made = objective(term, **ALONE)
    found = made(batch(), Draws(3, count=6), 0)
    further = made.full_noise.draw(Draws(3, count=6).child("full noise"))
    x_1 = torch.full_like(further.x_0, made.teacher.process.mask_index)
    lam = torch.eye(K).expand(18, -1, -1)
    prediction = made.model.predict(x_1, torch.ones(18).double(), further.cond, lam)
    log_p = prediction.log_prob_of(further.x_0).logsumexp(-1) - math.log(K)
    torch.testing.assert_close(found["full_noise"], -2 * log_p.unflatten(0, (6, 3)).mean(1), rtol=1e-5, atol=1e-5)
    product = prediction.average().log_prob_of(further.x_0)[:, 0]
    correlation = (log_p - product).unflatten(0, (6, 3)).mean(1)
    torch.testing.assert_close(found["full_noise_correlation"], correlation, rtol=1e-4, atol=1e-4)
    assert torch.equal(found["loss"], found["full_noise"])


def test_it_stands_beside_the_other_terms_and_before_them_alone():
    term = FullNoiseTerm(weight=0.5, ratio=2, alone=3)
    made, without = objective(term), make("readout", "monte-carlo", Categorical(atoms=K))
    alone, beside = (made(batch(), Draws(3, count=6), step) for step in (2, 3))
    others = without(batch(), Draws(3, count=6), 3)
    assert set(alone) == {"loss", "full_noise", "full_noise_correlation"}
    torch.testing.assert_close(beside["loss"], others["loss"] + alone["loss"])
    torch.testing.assert_close(beside["data"], others["data"])


@pytest.mark.parametrize(("latent", "components"), [(Categorical(atoms=K), "all"), (Uniform(), 7)])
def test_neither_ranks_nor_micro_batches_change_it(latent, components):
    """Not for λ drawn at random either: one set serves all examples."""
    made = objective(FullNoiseTerm(1.0, ratio=2, clustered=components == "all", components=components), latent, **ALONE)
    made.begin_step(0)
    whole = made(batch(), Draws(3, count=6), 0)["loss"]
    parts = [
        made(Batch(batch().x_0[a:b], batch().cond[a:b]), Draws(3, first=a, count=b - a), 0)["loss"]
        for a, b in [(0, 2), (2, 6)]
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)


def test_dropout_draws_a_mask_for_every_example():
    made = objective(FullNoiseTerm(1.0, ratio=2), **ALONE)
    rows = []
    made.model.backbone.register_forward_hook(lambda _, given, out: rows.append(len(given[0])))
    made(batch(), Draws(3, count=6), 0)
    made.model.backbone.blocks[0].register_module("extra", nn.Dropout(0.5))
    made(batch(), Draws(3, count=6), 0)
    assert rows == [3, 12]


def test_clusters_are_those_of_the_data_and_of_the_seed():
    words = Words()
    log_w = torch.tensor([0.5, 0.3, 0.2]).log()
    found, again, other = (Clusters.of(words, log_w, 5, Draws(seed)) for seed in (3, 3, 1))
    explained = found.of_examples(words.x_0)
    assert torch.equal(explained, again.of_examples(words.x_0))
    names = [explained[words.cond == stem].argmax(-1).unique().tolist() for stem in range(3)]
    assert all(len(name) == 1 for name in names) and len({name[0] for name in names}) == 3
    torch.testing.assert_close(found.log_theta.exp().sum(1), torch.ones(6, 3))
    each = nn.functional.one_hot(words.x_0, 5).float().flatten(1) @ found.log_theta.flatten(0, 1) + log_w
    torch.testing.assert_close(found.log_joint(words.x_0), each)
    torch.testing.assert_close(explained, each.softmax(-1))
    assert not torch.equal(found.log_theta, other.log_theta)


def test_clusters_bind_more_than_marginals():
    """EM's likelihood beats the product's by about what the stems tell, log 3 nats and more."""
    words = Words()
    log_p = Clusters.of(words, torch.full((3,), 1 / 3).log(), 5, Draws(3)).log_joint(words.x_0).logsumexp(-1)
    one = Clusters.of(words, torch.zeros(1), 5, Draws(3)).log_joint(words.x_0).logsumexp(-1)
    assert (log_p - one).mean() > 2


def test_a_clustered_start_makes_components_of_clusters():
    """After some steps with λ told, x_0's atom explains it; then the likelihood of the mixture is trained."""
    made = objective(FullNoiseTerm(1.0, ratio=8, clustered=60), Categorical(atoms=3), num_classes=None, **ALONE)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    for step in range(60):
        made.begin_step(step)
        found = made(batch(), Draws(3, count=6).child(step), step)
        optimizer.zero_grad()
        found["loss"].mean().backward()
        optimizer.step()
    words = Words()
    x_1 = torch.full_like(words.x_0, made.teacher.process.mask_index)
    predicted = made.model.predict(x_1, torch.ones(90), None, torch.eye(3).expand(90, -1, -1)).log_prob_of(words.x_0)
    assert (predicted.argmax(-1) == made.full_noise.clusters.of_examples(words.x_0).argmax(-1)).float().mean() > 0.9


@pytest.mark.parametrize(("term", "latent", "told"), [
    ({"ratio": 0}, Categorical(atoms=K), "ratio"),
    ({"clustered": 5}, Uniform(), "clustered"),
    ({"clustered": 5, "components": 3}, Categorical(atoms=K), "clustered"),
    ({}, Uniform(), "all"),
])  # fmt: skip
def test_what_cannot_be_is_told(term, latent, told):
    with pytest.raises(SpecError, match=told):
        objective(FullNoiseTerm(weight=1.0, **term), latent)


def test_more_clusters_than_examples_are_refused():
    with pytest.raises(SpecError, match="there are 90"):
        Clusters.of(Words(), torch.zeros(91), 5, Draws(0))


def test_without_a_mask_examples_share_nothing():
    (fault,) = FullNoiseTerm(1.0).faults(Categorical(atoms=3), UniformProcess(5, speed=1.0))
    assert "mask" in fault
