"""Atoms of a finite prior of λ that explain none of the data: they get no gradient, but are sampled like all others."""

import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, LambdaSampler
from di4c.diagnostics.mixture import Studied
from di4c.mixture.equal_inputs import equal_inputs, once
from di4c.mixture.sums import Query, statistics

UNUSED = 1 / 20
"""An atom is unused if its mean posterior weight over the data is below this share of its prior weight."""
EXAMPLES_AN_ATOM = 4
"""Of 4K examples an atom with its share of them has none in two cases of a hundred."""
LARGEST_PROBE = 2**14
SAMPLES_AT_A_TIME = 16
SMALL_TIME = 1 / 4
"""A time at which atoms can be dead that are alive at t = 1: the network sees both t and λ."""


def probe_examples(latent: LambdaSampler, num_classes: int | None) -> int:
    """How many examples `unused_atoms` is to be given: enough for every class, where that is not too many; 0: none, λ is not finite."""
    if latent.num_atoms is None or latent.num_atoms < 2:
        return 0
    each = EXAMPLES_AN_ATOM * latent.num_atoms
    labelled = each * (num_classes or 1) * 5 // 4  # classes do not come equally often
    return labelled if num_classes and labelled <= LARGEST_PROBE else each


@torch.no_grad()
def unused_atoms(of: Studied, probe: Batch, draws: Draws, *, rows_at_a_time: int, t: float = 1.0) -> dict[str, float]:
    """{"unused_atoms": the share of the mixture's samples in one step that come from unused atoms}; for equal weights, the share of atoms.

    At t < 1 "unused_atoms_small_t", that of a step from there: every example counts with an x_t of its own, if anything is uncertain in
    it. Nothing is said of more than LARGEST_PROBE pairs of an example and an atom, nor where nothing is uncertain in any example.

    Σ_k w_k [ E_{x_0 | c} p(λ_k | x_0, x_1, c) < w_k / 20 ],   p(λ_k | x_0, x_1, c) ∝ w_k ∏_d p^{θ,d}(x_0^d | x_1, c; λ_k),

    mean over the classes c with 4K examples in the probe batch; over all examples alike, each with its label, if no class has as many.
    x_1 carries nothing of x_0, so one x_1 serves all examples of a class. Of `draws` the name counts, not the examples: ranks agree.
    rows_at_a_time: of x_1 in a forward pass.
    """
    latent, atoms = of.latent, of.latent.num_atoms
    labels, samples = _rows(probe, EXAMPLES_AN_ATOM * atoms, each=t < 1)
    if t < 1 and len(samples) * atoms > LARGEST_PROBE:
        return {}
    stream = Draws(draws.seed, count=len(samples), path=draws.path, device=draws.device).child("census")
    log_weights = latent.log_weights(atoms).to(samples.device)
    posterior = []
    for start in range(0, len(samples), rows_at_a_time):
        x_0 = samples[start : start + rows_at_a_time]
        part = stream.rows(start, start + len(x_0))
        cond = None if labels is None else labels[start : start + len(x_0)]
        times = torch.full((len(x_0),), t, dtype=torch.float64, device=x_0.device)
        x_t = of.process.corrupt(x_0[:, 0], times, part) if t < 1 else of.process.prior(x_0.shape[-1], part)
        lam, sharing = latent.sample(atoms, part).to(x_0.device), equal_inputs(x_t, times, cond)
        options = {"log_weights": log_weights, "at_a_time": of.at_a_time}
        prediction = once(of.student.predict, sharing, x_t, times, cond, lam, **options)
        queries = [Query(frozenset({"joint"}), some) for some in x_0.split(SAMPLES_AT_A_TIME, 1)]
        joint = torch.cat([statistics(prediction, [query])[0].joint for query in queries], 1)
        mask = of.process.mask_index
        uncertain = torch.ones_like(x_t[:, 0], dtype=torch.bool) if mask is None else (x_t == mask).any(-1)
        posterior.append((joint + log_weights.to(joint)).softmax(-1)[uncertain])
    found = torch.cat(posterior).double()  # [R, N, K]
    if not len(found):
        return {}
    use = found.mean(1) if samples.shape[1] > 1 else found.mean(0)
    weights = log_weights.exp()
    name = "unused_atoms" if t == 1 else "unused_atoms_small_t"
    return {name: float((weights * (use < UNUSED * weights)).sum(-1).mean())}


def _rows(probe: Batch, number: int, each: bool) -> tuple[Tensor | None, Tensor]:
    """(labels [R] or None, x_0 [R, N, D]): a row a class with its first `number` examples, if any has so many, else (and with `each`)
    a row an example."""
    labels = [] if each or probe.cond is None else probe.cond.unique().tolist()
    found = {label: probe.x_0[probe.cond == label][:number] for label in labels}
    full = {label: x_0 for label, x_0 in found.items() if len(x_0) == number}
    if full:
        return torch.tensor(list(full), device=probe.x_0.device), torch.stack(list(full.values()))
    return None if probe.cond is None else probe.cond[:number], probe.x_0[:number, None]
