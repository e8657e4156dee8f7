"""Continuous-time Markov chains as forward processes, by transition matrices.

One matrix a distinct time serves all positions of all examples at that time, and positions are read in blocks: nothing
of the size [B, D, S] is held at once.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from di4c.contracts import CHUNK_BYTES, Draws, ForwardProcess, Prediction, categorical, cumulated
from di4c.errors import SpecError, not_negative
from di4c_plugins.processes.chain import ReversibleChain, Tables, search_rows
from di4c_plugins.processes.ctmc_bound import continuous_time_bound
from di4c_plugins.processes.rates import ConstantTime, ExponentialTime, RateMatrix


class ContinuousTimeChain(ForwardProcess):
    """Each position is a chain with rate β(t)·R, independently: q_{t|s} = exp(R·∫ₛᵗ β) (Campbell et al. 2022).

    prior: the law of x_1 in generation, [S]; R's stationary law if None.
    ratio_floor: ε, added to probabilities that are divided by, so that a clean state from which x_t cannot be reached
        does not raise an overflow (tauLDR's `eps_ratio`); without effect where q(x_t|x_0) ≫ ε.
    min_time: where the reverse chain of the bound stops and x_0 is drawn.
    """

    def __init__(
        self,
        matrix: RateMatrix,
        time: ExponentialTime | ConstantTime,
        *,
        prior: Tensor | None = None,
        ratio_floor: float = 1e-9,
        min_time: float = 0.01,
    ):
        not_negative("process.ratio_floor", ratio_floor)
        if not 0 < min_time < 1:
            raise SpecError(f"process.min_time: between 0 and 1; found {min_time}")
        self.chain = ReversibleChain(matrix)
        self.num_states = self.chain.num_states
        self.time = time
        self.prior_probs = self.chain.stationary if prior is None else prior
        self.ratio_floor = ratio_floor
        self.min_time = min_time

    def rate(self, t: Tensor) -> Tensor:
        """β(t)·R, [from, to]: [B, S, S] float64."""
        return self.chain.rate.to(t.device) * self.time.rate(t.double())[:, None, None]

    def transition(self, t: Tensor, s: Tensor | None = None) -> Tensor:
        """q_{t|s}, [from, to] (s None: 0): [B, S, S] float64, for t, s [B] with s ≤ t."""
        elapsed = self.time.integral(t.double())
        return self.chain.transition(elapsed if s is None else elapsed - self.time.integral(s.double()))

    def prior(self, num_positions: int, draws: Draws) -> Tensor:
        return categorical(self.prior_probs.to(draws.device), draws.uniform(num_positions).flatten()).view(
            -1, num_positions
        )

    def corrupt(self, x_0: Tensor, t: Tensor, draws: Draws) -> Tensor:
        """x_t by inversion of the rows q(·|x_0): the cumulative matrices are searched, no row is copied."""
        q = self.tables(t)
        return search_rows(cumulated(q.matrices), q.number(x_0), draws.uniform(x_0.shape[1]))

    def posterior(self, x_t: Tensor, prediction: Prediction, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        """First x_0 ~ p(·|x_t), then x_s ~ q(·|x_t, x_0): the sum over x_0, by sampling it."""
        x_0 = prediction.draw(draws.child("x_0").uniform(x_t.shape[1]))
        return torch.where(s[:, None] == 0, x_0, self.bridge(x_t, x_0, t, s, draws.child("x_s")))

    def bridge(self, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, draws: Draws) -> Tensor:
        """x_s ~ q(x_s | x_t, x_0) ∝ q_{s|0}[x_0, x_s]·q_{t|s}[x_s, x_t]: [B, D]."""
        from_0, to_t = self.bridge_tables(t, s)
        begin, end = from_0.number(x_0).flatten(), to_t.number(x_t).flatten()
        starts, ends = from_0.matrices.flatten(0, 1), to_t.matrices.mT.flatten(0, 1)
        uniform, x_s = draws.uniform(x_t.shape[1]).flatten(), torch.empty_like(begin)
        for rows in torch.arange(len(begin), device=begin.device).split(max(1, CHUNK_BYTES // (8 * self.num_states))):
            x_s[rows] = categorical(starts[begin[rows]] * ends[end[rows]], uniform[rows])
        return x_s.view_as(x_t)

    def step_probs(self, x_t: Tensor, p_0: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Σ_{x_0} q(x_s|x_t, x_0) p(x_0|x_t): [B, d, S] float64, from p_0 [B, d, S] at the d positions x_t [B, d]."""
        from_0, to_t = self.bridge_tables(t, s)
        return from_0.after(p_0.double() / from_0.then(to_t).columns(x_t)) * to_t.columns(x_t)

    def posterior_log_prob(self, x_s: Tensor, x_t: Tensor, prediction: Prediction, t: Tensor, s: Tensor) -> Tensor:
        """Σ_d log Σ_{x_0} q(x_s^d|x_t^d, x_0) p^d(x_0|x_t; λ_m): [B, M]."""
        if bool((s == 0).all()):
            return prediction.log_prob_of(x_s)
        from_0, to_t = self.bridge_tables(t, s)
        begin, end = from_0.number(x_s).flatten(), to_t.number(x_t).flatten()
        reach = from_0.then(to_t).matrices.mT.flatten(0, 1)
        starts, steps = from_0.matrices.mT.flatten(0, 1), to_t.matrices.flatten(0, 1)
        total = torch.zeros(prediction.shape[:2], dtype=torch.float64, device=x_t.device)
        for rows in prediction.chunks():
            log_weight = (starts[begin[rows]] / reach[end[rows]]).log()[:, None]
            log_step = steps[begin[rows], x_t.flatten()[rows]].log()[:, None]
            log_p = (prediction.log_probs(rows).double() + log_weight).logsumexp(-1) + log_step
            total = total.index_add(0, rows // x_t.shape[1], log_p)
        return total.to(torch.float64 if prediction.features.dtype == torch.float64 else torch.float32)

    def ratios(self, q: Tables, x_t: Tensor, p_0: Tensor) -> Tensor:
        """q_t(y)/q_t(x_t) by the model, Σ_{x_0} p(x_0|x_t) q(y|x_0)/q(x_t|x_0): [B, d, S] over y; q = tables(t)."""
        return q.after(p_0.double() / (q.columns(x_t) + self.ratio_floor))

    def reverse_rates(self, q: Tables, x_t: Tensor, p_0: Tensor, t: Tensor) -> Tensor:
        """The rate of x_t → y in reversed time, β(t)·R[y, x_t]·q_t(y)/q_t(x_t): [B, d, S] float64, 0 at y = x_t."""
        jumps = self.chain.jumps(x_t.device).mT[x_t]
        return self.time.rate(t.double())[:, None, None] * jumps * self.ratios(q, x_t, p_0)

    def forward_rates(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The rate of x_t → y, β(t)·R[x_t, y]: [B, d, S] float64, 0 at y = x_t."""
        return self.time.rate(t.double())[:, None, None] * self.chain.jumps(x_t.device)[x_t]

    def blocks(self, size: int, positions: int) -> Iterator[slice]:
        """Positions in blocks such that [B, d, S] float64 fits the chunk budget; their number depends on shapes."""
        width = max(1, CHUNK_BYTES // (8 * size * self.num_states))
        return (slice(start, min(start + width, positions)) for start in range(0, positions, width))

    def log_probs_at(self, prediction: Prediction, block: slice) -> Tensor:
        """log p(x_0|x_t) of a one-component prediction at a block of positions: [B, d, S]."""
        size, components, positions = prediction.shape
        assert components == 1, "rates are those of one component"
        columns = torch.arange(positions, device=prediction.x_t.device)[block]
        rows = torch.arange(size, device=columns.device)[:, None] * positions + columns
        return prediction.log_probs(rows.flatten())[:, 0].unflatten(0, rows.shape)

    def nelbo(self, x_0: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction) -> Tensor:
        return continuous_time_bound(self, x_0, x_t, t, prediction)

    def tables(self, t: Tensor) -> Tables:
        """q_{t|0} of the distinct times among t [B]."""
        times, which = torch.unique(t.double(), return_inverse=True)
        return Tables(self.transition(times), which)

    def bridge_tables(self, t: Tensor, s: Tensor) -> tuple[Tables, Tables]:
        """q_{s|0} + ε and q_{t|s} + ε of the distinct pairs among (t, s) [B]."""
        pairs, which = torch.unique(torch.stack([t.double(), s.double()], 1), dim=0, return_inverse=True)
        now, then = pairs.unbind(1)
        from_0, to_t = self.transition(then) + self.ratio_floor, self.transition(now, then) + self.ratio_floor
        return Tables(from_0, which), Tables(to_t, which)
