"""All x instead of samples, on spaces small enough to be listed."""

import itertools

import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO, Prediction
from di4c.errors import SpecError
from di4c.mixture.marginals import mixture_log_weights
from di4c.mixture.sums import Query, statistics

MAX_SAMPLES = 2**12
"""The most x that are listed for an example."""


@torch.no_grad()
def every_sample(target: Prediction, *, chunk_bytes: int | None = None) -> tuple[Tensor, Tensor]:
    """Every x [B, K, D] int64 and its log-probability under the mixture `target`, log Σ_m w_m ∏_d p^d(x^d; λ_m) [B, K].

    K = S^D without the excluded states; where a position is certain of its token, all but that token have LOG_ZERO.
    SpecError where K is more than MAX_SAMPLES.
    """
    size, _, positions = target.shape
    states = sorted(set(range(target.num_states)) - set(target.parameterisation.excluded or ()))
    if len(states) ** positions > MAX_SAMPLES:
        told = f"{len(states)}^{positions} x are more than {MAX_SAMPLES}"
        raise SpecError(f"an estimator that sums over all x is for small spaces: {told}")
    listed = torch.tensor(list(itertools.product(states, repeat=positions)), device=target.x_t.device)
    samples = listed.expand(size, -1, -1)
    found = statistics(target, [Query(frozenset({"joint"}), samples)], chunk_bytes=chunk_bytes)[0]
    log_law = (found.joint + mixture_log_weights(target).to(found.joint)).logsumexp(-1)
    wrong = ((samples != target.x_t[:, None]) & ~target.active()[:, None]).sum(-1)
    return samples, log_law + LOG_ZERO * wrong
