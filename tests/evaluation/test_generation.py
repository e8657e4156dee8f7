import math

import pytest
import torch

from di4c.contracts import Draws, Prediction
from di4c.errors import TrainingError
from di4c.evaluation.generation import Recipe, training_labels
from di4c.evaluation.models import Model
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.uniform import Uniform
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from di4c_plugins.samplers.tau_leaping import TauLeaping
from di4c_plugins.samplers.tauldr_ancestral import TauLDRAncestral
from tests.evaluation.systems import CLASSES, POSITIONS, PROCESS, STATES, Data, Fixed


def samples(count=50, steps=3, batch_size=8, batches=None):
    draws = Draws(4, count=count)
    recipe = Recipe(Fixed(), Ancestral(PROCESS), POSITIONS, steps)
    return recipe.batches(training_labels(Data(), draws), draws, batch_size, batches)


def test_batches_put_together_are_the_whole():
    whole = samples()
    parts = [samples(batches=part).x_0 for part in (range(0, 3), range(3, 3), range(3, 7))]
    assert [len(part) for part in parts] == [24, 0, 26]
    assert torch.equal(torch.cat(parts), whole.x_0)
    assert whole.x_0.max() < STATES


def test_batch_size_does_not_matter():
    assert torch.equal(samples(batch_size=8).x_0, samples(batch_size=50).x_0)


def test_nfe_counts_calls_of_the_denoiser():
    assert samples(steps=5).nfe == 5
    assert len(samples(steps=5).seconds) == 7


def test_labels_follow_the_training_data():
    """Tolerance: 5 standard errors of 2000 fair coins; each row keyed by its example."""
    labels = training_labels(Data(), Draws(0, count=2000))
    assert abs(labels.double().mean() - 1 / CLASSES) < 5 * 0.5 / 2000**0.5
    assert torch.equal(labels[100:200], training_labels(Data(), Draws(0, first=100, count=100)))


def test_samples_follow_the_model():
    """Frequencies of the states under each label against the model's; tolerance: 5 standard errors."""
    made = samples(count=1500, steps=2, batch_size=500)
    labels = training_labels(Data(), Draws(4, count=1500))
    for label, logits in enumerate(([0.0, 1.0, 2.0], [2.0, 1.0, 0.0])):
        tokens = made.x_0[labels == label].flatten()
        expected = torch.tensor(logits).softmax(0)
        assert (tokens.bincount(minlength=STATES) / len(tokens) - expected).abs().max() < 5 * 0.5 / len(tokens) ** 0.5


class Says(Model):
    """Logits 0 but for one number, of one state, position and example, in the second half of the steps."""

    def __init__(self, number, states):
        self.number, self.states = number, states

    def denoiser(self, draws):
        return lambda x_t, t, cond: self.components(x_t, t, cond, draws, 1)

    def components(self, x_t, t, cond, draws, num):
        logits = torch.zeros(*x_t.shape, self.states)
        if t.min() < 0.6:
            logits[-1, 1, 0] = self.number
        return Prediction.from_logits(logits, x_t)


@pytest.mark.parametrize("sampler", [Ancestral, MdlmAncestral, TauLDRAncestral, TauLeaping])
@pytest.mark.parametrize("process", [Absorbing(STATES), Uniform(STATES, speed=3.0)])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_told_whatever_the_sampler_makes_of_it(sampler, process, number):
    """Most samplers take NaN for the first or the last state; a logit of −∞ is a state that cannot be."""
    if (sampler is TauLeaping and process.mask_index is not None) or (
        sampler is MdlmAncestral and process.mask_index is None
    ):
        return
    recipe = Recipe(Says(number, process.num_states), sampler(process), POSITIONS, 4)
    if number == -math.inf:
        assert recipe.batch(None, Draws(0, count=3))[1] >= 3 * 4
        return
    with pytest.raises(TrainingError, match="outputs are NaN or infinite"):
        recipe.batch(None, Draws(0, count=3))
