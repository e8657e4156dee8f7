"""The row functions in torch operators; see rows.py for the formulas.

`scratch`, as large as the logits, is overwritten, and so are the logits by `row_gradient`.
"""

from functools import reduce

import torch
from torch import Tensor

from di4c.draws import categorical
from di4c.kernels.adding import at_tokens, chosen_table
from di4c.kernels.rows import Against, Lines, Logits, RowValues

ADDS_BIAS, BUFFERED = False, True
"""The bias is in the logits already; logits and scratch are made once a pass."""


def row_values(logits: Logits, against: Against, scratch: Tensor) -> RowValues:
    """The wanted RowValues of a chunk."""
    z, weights, q = logits.z, against.log_weights.exp(), against.q
    p = torch.softmax(z, -1, out=scratch)
    normaliser = z.amax(-1) - p.amax(-1).log()
    chosen = kl = componentwise = None
    if against.tokens is not None:
        chosen = at_tokens(z, against.tokens, against.row).sub_(against.of_lines(normaliser)[..., None])
    if against.kl:
        mean = torch.matmul(weights, p)
        if _underflows(mean, q):  # by logarithms throughout
            log_mean = (z - normaliser[..., None] + against.log_weights[:, None]).logsumexp(1)
        else:
            log_mean = mean.clamp_min(_tiny(mean)).log_()
        kl = torch.stack([torch.special.xlogy(x, x).sum(-1) - (x * log_mean).sum(-1) for x in q])
    if against.componentwise:
        cross = [torch.bmm(z, x[..., None]).squeeze(-1) - normaliser * x.sum(-1, keepdim=True) for x in q]
        componentwise = torch.stack(
            [torch.special.xlogy(x, x).sum(-1) - each @ weights for x, each in zip(q, cross, strict=True)]
        )
    return RowValues(chosen, kl, componentwise)


def row_gradient(logits: Logits, against: Against, given: RowValues, scratch: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient with respect to z: [P, M, S], in z's dtype; `dtype`, and what was kept, are for kernels that use them."""
    z, weights = logits.z, against.log_weights.exp()
    pull, push = _weighted(against.q, given.kl), _weighted(against.q, given.componentwise)
    p = torch.softmax(z, -1, out=scratch)
    index, chosen = _at_states(against, given.chosen, z)
    row_sum = chosen.sum(-1)
    if pull is not None:
        mean = torch.matmul(weights, p)
        if _underflows(mean, against.q):
            return _gradient_in_logs(z, against, index, chosen, pull, push)
        ratio = pull / mean.clamp_min(_tiny(mean))
        row_sum = row_sum - weights * torch.bmm(p, ratio[..., None]).squeeze(-1)
    if push is not None:
        row_sum = row_sum - weights * push.sum(-1, keepdim=True)
    if pull is None:
        gradient = p.mul_(-row_sum[..., None])
    else:  # p_m(s)·(−row_sum_m − w_m·ratio(s)): the factor is a sum of two outer products
        left = torch.stack([-row_sum, -weights.expand_as(row_sum)], -1)
        right = torch.stack([torch.ones_like(ratio), ratio], 1)
        gradient = p.mul_(torch.bmm(left, right, out=z))
    if push is not None:
        gradient.baddbmm_(-weights.expand_as(row_sum)[..., None], push[:, None])
    return _add(gradient, index, chosen)


def row_draw(logits: Logits, lines: Lines, scratch: Tensor, mean: Tensor | None = None) -> Tensor | None:
    """A state of each distribution of the rows: [P, C] int64, or None without uniforms; their mean is written to `mean` [P, S]."""
    p = torch.softmax(logits.z, -1, out=scratch)
    drawn = None if lines.uniform is None else categorical(p, lines.uniform)
    if lines.certain is not None:
        token, certain = lines.certain.clamp_min(0)[..., None], (lines.certain >= 0)[..., None]
        p.mul_(~certain).scatter_add_(-1, token, certain.to(p))
        drawn = None if drawn is None else torch.where(certain[..., 0], token[..., 0], drawn)
    if mean is not None:
        torch.matmul(lines.weights.to(p), p, out=mean)
    return drawn


def _gradient_in_logs(
    z: Tensor, against: Against, index: Tensor | None, chosen: Tensor, pull: Tensor, push: Tensor | None
) -> Tensor:
    """The same without dividing by p̄, where p̄ underflows at a state that counts: responsibilities as a softmax over m."""
    log_p = z.log_softmax(-1)
    a = (log_p + against.log_weights[:, None]).softmax(1).mul_(-pull[:, None])  # w_m p_m(s)/p̄(s), pulled
    if push is not None:
        a = a - against.log_weights.exp()[:, None] * push[:, None]
    a = _add(a, index, chosen)
    return a.addcmul_(log_p.exp_(), a.sum(-1, keepdim=True), value=-1)


def _at_states(against: Against, given: Tensor | None, z: Tensor) -> tuple[Tensor | None, Tensor]:
    """(their states, the gradients with respect to the chosen log-probabilities): [P, M, N] each, N = 0 without any.

    Where lines share rows, and on a GPU, where `scatter_add_` is atomic: (None, a table [P, M, S] of their sums).
    """
    if given is None:
        given = z.new_zeros(*z.shape[:2], 0)
        return given.long(), given
    if against.row is None and not (z.is_cuda and given.numel()):
        return against.tokens[:, None].expand_as(given), given
    row = torch.arange(len(z), device=z.device) if against.row is None else against.row
    return None, chosen_table(row, against.tokens, given, len(z), z.shape[-1])


def _add(total: Tensor, index: Tensor | None, values: Tensor) -> Tensor:
    """total [P, M, S] with the values at their states added, in place."""
    return total.add_(values) if index is None else total.scatter_add_(-1, index, values)


def _weighted(q: list[Tensor], given: Tensor | None) -> Tensor | None:
    """Σ_j g_j q_j: [P, S], or None without gradients."""
    return None if given is None else sum(x * g[:, None] for x, g in zip(q, given, strict=True))


def _underflows(mean: Tensor, q: list[Tensor]) -> bool:
    """Whether p̄ is too small to divide by at a state where some q is not negligible (then q·log p̄ and q/p̄ count).

    Asking would make the host wait for a GPU, so there the answer is yes.
    """
    negligible = torch.finfo(mean.dtype).eps ** 2
    return mean.is_cuda or bool(((mean < _tiny(mean)) & (reduce(torch.maximum, q) > negligible)).any())


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny * 1e8
