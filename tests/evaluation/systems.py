"""A sweep's parts without networks: samples that are known, and metrics that count."""

import torch

from di4c.contracts import Batch, DataSource, Metric, Parameterisation, Prediction, Split
from di4c.evaluation.models import Model
from di4c.evaluation.sweep import Entrant
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral

POSITIONS, STATES, CLASSES = 4, 3, 2
PROCESS = Absorbing(STATES)


class Tokens(Split):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def batch(self, indices, draws=None):
        tokens = (indices[:, None] + torch.arange(POSITIONS)) % STATES
        return Batch(tokens, indices % CLASSES)


class Data(DataSource):
    num_positions, num_states, num_classes = POSITIONS, STATES, CLASSES

    def split(self, name):
        return Tokens(30)

    def save_grid(self, x, path, cond=None):
        path.with_suffix(".txt").write_text(str(x.tolist()))
        return path.with_suffix(".txt")


class Masked(Parameterisation):
    def log_probs(self, logits, x_t):
        return logits.log_softmax(-1)

    def active(self, x_t):
        return x_t == PROCESS.mask_index


class Fixed(Model):
    """p(x_0 | x_t) ∝ the label's weights, whatever x_t."""

    def denoiser(self, draws):
        return lambda x_t, t, cond: self.components(x_t, t, cond, draws, 1)

    def components(self, x_t, t, cond, draws, num):
        logits = torch.tensor([[0.0, 1.0, 2.0, -1e6], [2.0, 1.0, 0.0, -1e6]])[cond]
        return Prediction.from_logits(logits[:, None].expand(-1, POSITIONS, -1), x_t, Masked())


class Mean(Metric):
    """`mean` of the tokens, and the labels' as a guard; tells how often it was asked, and fails at a given call."""

    higher_is_better = False
    guards = frozenset({"labels"})

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, generation):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return {"mean": float(generation.x_0.double().mean()), "labels": float(generation.cond.double().mean())}

    def reference_values(self, num_samples, draws):
        return {"mean": 1.0, "labels": 0.5}


class Steps(Metric):
    """`steps`, measured without samples."""

    needs_samples = False
    higher_is_better = True

    def __call__(self, generation):
        assert len(generation.x_0) == 0
        return {"steps": float(generation.steps)}


def entrant(name="teacher", mixture_size=None, weights="w"):
    return Entrant(name, mixture_size, lambda draws: Fixed(), Ancestral(PROCESS), {"weights": weights})
