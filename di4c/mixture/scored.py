"""A prediction that tells the log-probabilities of tokens by the row functions."""

from dataclasses import dataclass

from torch import Tensor

from di4c.contracts import Prediction
from di4c.kernels.backend import chunk_budget
from di4c.mixture.chunked import Scored, row_values_of
from di4c.mixture.marginals import mixture_log_weights
from di4c.mixture.rows import Rows, sum_by_example


@dataclass(frozen=True)
class ScoredByRows(Prediction):
    """A Prediction whose `log_prob_of` has a gradient written by hand where its output head is affine.

    For what is trained on tokens alone: no log-softmax [P, S] of a chunk is kept or made by autograd, as in the losses of a mixture.
    """

    def log_prob_of(self, x: Tensor, where: Tensor | None = None, chunk_bytes: int | None = None) -> Tensor:
        if not self.is_affine:
            return super().log_prob_of(x, where, chunk_bytes)
        chunk_bytes = chunk_bytes or chunk_budget(x.device)
        number = self.uncertain_rows(where)
        scored = Scored(mixture_log_weights(self), x[:, None], [], kl=False, componentwise=False, pairs=None)
        chosen, *_ = row_values_of(self, Rows.at(self, number, chunk_bytes), scored, chunk_bytes)
        size, _, positions = self.shape
        return sum_by_example(chosen[..., 0], number, positions, size, chunk_bytes // 2).to(self.accumulation_dtype)
