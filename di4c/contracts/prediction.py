"""p(x_0 | x_t; λ_1), …, p(x_0 | x_t; λ_M) before the output head: what teachers, students and denoisers return."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from di4c.contracts.backbone import IdentityOutputHead, Modulation
from di4c.contracts.drawing import SoftmaxRows, draw_from
from di4c.contracts.parameterisation import LOG_ZERO, Parameterisation, Raw, WithoutState
from di4c.contracts.sharing import Sharing
from di4c.contracts.tempering import Tempering
from di4c.eager import run_eagerly
from di4c.kernels.backend import CPU_BYTES, chunk_budget
from di4c.kernels.rows import Logits

CHUNK_BYTES = CPU_BYTES
"""A budget for what has one size on every device."""


@dataclass(frozen=True)
class Prediction:
    """The M components' distributions of x_0 given x_t, read out for chosen rows only.

    features: [B·M, D, H] (b major), or [B, D, H] with a modulation that makes the M components.
    x_t: [B, D] int64. log_weights: [M] log-weights of the components, or None for equal ones.
    averaged: present the mixture's marginals log Σ_m w_m p_m as a single component.
    num_states: S.
    sharing: whose inputs these are, where examples share them: B is then the number of inputs here, G of `Sharing`, and
    everything is of inputs; `for_examples` gives every example its own.
    tempering: of every component's distribution at every position, before they are averaged; None: as the model says.
    """

    features: Tensor
    x_t: Tensor
    output_head: nn.Module
    parameterisation: Parameterisation
    num_states: int
    components: int = 1
    modulation: Modulation | None = None
    log_weights: Tensor | None = None
    averaged: bool = False
    sharing: Sharing | None = None
    tempering: Tempering | None = None

    @classmethod
    def from_logits(cls, logits: Tensor, x_t: Tensor, parameterisation: Parameterisation | None = None) -> "Prediction":
        """From logits (or log-probabilities) [B, D, S] or [B, M, D, S], through an identity head."""
        components = logits.shape[1] if logits.dim() == 4 else 1
        flat = logits.flatten(0, 1) if logits.dim() == 4 else logits
        return cls(flat, x_t, IdentityOutputHead(), parameterisation or Raw(), logits.shape[-1], components)

    @classmethod
    def point(cls, x_0: Tensor, x_t: Tensor, num_states: int) -> "Prediction":
        """The prediction that is certain of x_0 [B, D]."""
        one_hot = torch.nn.functional.one_hot(x_0, num_states).bool()
        return cls.from_logits(torch.where(one_hot, 0.0, LOG_ZERO), x_t)

    def without(self, state: int) -> "Prediction":
        """Given that x_0 is nowhere `state` (the mask, say), each component by itself; itself where it is never that state."""
        if state in (self.parameterisation.excluded or ()):
            return self
        return replace(self, parameterisation=WithoutState(self.parameterisation, state))

    def tempered(self, tempering: Tempering | None) -> "Prediction":
        """The same under a temperature and top-p instead of its own; None: as the model says."""
        return self if tempering == self.tempering else replace(self, tempering=tempering)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, M, D), M = 1 when averaged."""
        return self.x_t.shape[0], 1 if self.averaged else self.components, self.x_t.shape[1]

    @property
    def accumulation_dtype(self) -> torch.dtype:
        """The dtype of log-probabilities: float32 at least."""
        return torch.float64 if self.features.dtype == torch.float64 else torch.float32

    def active(self) -> Tensor:
        """Positions with uncertainty: bool [B, D]."""
        return self.parameterisation.active(self.x_t)

    def repeated(self, copies: int) -> "Prediction":
        """The same for `copies` copies of every example, b major: [B·copies, …]."""
        return self.taken(torch.arange(len(self.x_t), device=self.x_t.device).repeat_interleave(copies))

    def for_examples(self) -> "Prediction":
        """The same for every example that shares the inputs; itself where none are shared."""
        return self if self.sharing is None else self.taken(self.sharing.of)

    def taken(self, index: Tensor) -> "Prediction":
        """The same for the examples `index` [B'] int64, which may come more than once."""
        modulation, features = self.modulation, self.features
        if modulation is None:
            features = features.unflatten(0, (-1, self.components))[index].flatten(0, 1)
        else:
            features, modulation = features[index], replace(modulation, code=modulation.code[index])
        return replace(self, features=features, x_t=self.x_t[index], modulation=modulation, sharing=None)

    def average(self, log_weights: Tensor | None = None) -> "Prediction":
        """The product of the λ-averaged marginals as one component: ∏_d Σ_m w_m p^d(·; λ_m)."""
        return replace(self, averaged=True, log_weights=self.log_weights if log_weights is None else log_weights)

    def chunks(self, chunk_bytes: int | None = None, where: Tensor | None = None) -> Iterator[Tensor]:
        """The rows b·D + d with uncertainty (and in `where`, bool [B, D]), in chunks whose logits fit `chunk_bytes`
        (None: the budget of their device, chunk_budget).

        Their number depends on the shapes alone, so that all ranks call the output head equally often (ZeRO-3); some may be empty.
        """
        return iter(self.uncertain_rows(where).tensor_split(self.number_of_chunks(chunk_bytes)))

    def uncertain_rows(self, where: Tensor | None = None) -> Tensor:
        """The rows b·D + d with uncertainty (and in `where`): [R]. A GPU has to be waited for: their number is a shape."""
        chosen = self.active() if where is None else self.active() & where
        return chosen.flatten().nonzero().squeeze(-1)

    def number_of_chunks(self, chunk_bytes: int | None = None) -> int:
        """How many chunks of that budget its rows are cut into."""
        at_a_time = self.rows_at_a_time(chunk_bytes or chunk_budget(self.x_t.device))
        return max(1, -(-self.most_rows // at_a_time))

    def rows_at_a_time(self, chunk_bytes: int) -> int:
        """How many rows' logits fit that budget, at least 1."""
        return max(1, chunk_bytes // (self.components * self.num_states * max(self.features.element_size(), 4)))

    @property
    def most_rows(self) -> int:
        """B·D, the same on all ranks: numbers of calls follow it."""
        return self.x_t.numel() if self.sharing is None else self.sharing.most * self.x_t.shape[1]

    def log_prob_of(self, x: Tensor, where: Tensor | None = None, chunk_bytes: int | None = None) -> Tensor:
        """Σ_d log p^d(x^d | x_t; λ_m) over the positions with uncertainty (and in `where`): [B, M] nats, x [B, D]."""
        size, components, _ = self.shape
        tokens = x.flatten()

        def read(h: Tensor, rows: Tensor) -> Tensor:
            index = tokens[rows][:, None, None].expand(-1, components, 1)
            return self.log_probs_from(h, rows).gather(-1, index).squeeze(-1)

        return self.summed(read, ((rows,) for rows in self.chunks(chunk_bytes, where)), size, components)

    def summed(self, read: Callable[..., Tensor], pieces: Iterable[tuple[Tensor | None, ...]], *shape: int) -> Tensor:
        """Σ_d of what `read` makes of component features at rows b·D + d, in that shape: [B, …] float32 at least.

        pieces: (rows, whatever else `read` takes), a chunk each; what is read is read again in the backward pass.
        """
        total = torch.zeros(shape, dtype=self.accumulation_dtype, device=self.x_t.device)
        for rows, *more in pieces:
            h = self.component_features(rows)
            if torch.is_grad_enabled() and h.requires_grad:
                value = checkpoint(read, h, rows, *more, use_reentrant=False, preserve_rng_state=False)
            else:
                value = read(h, rows, *more)
            total = total.index_add(0, rows // self.x_t.shape[1], value.to(total))
        return total

    def log_probs(self, rows: Tensor) -> Tensor:
        """log p(x_0^d | x_t; λ_m) at rows b·D + d (int64 [P]): [P, M, S] float32 (float64 features stay so)."""
        return self.log_probs_from(self.component_features(rows), rows)

    @torch.no_grad()
    def draw(self, uniform: Tensor, where: Tensor | None = None) -> Tensor:
        """x_t with x_0^d ~ p^d(· | x_t) at the positions with uncertainty (and in `where`, bool [B, D]): [B, D] int64.

        Of a one-component prediction, by inversion of uniform [B, D] float64. A GPU is waited for once.
        """
        assert self.shape[1] == 1, "one component is drawn from; call .average() first"
        assert uniform.shape == self.x_t.shape, f"a uniform for every position of x_t {tuple(self.x_t.shape)}"
        x, u = self.x_t.flatten().clone(), uniform.flatten()
        if self.is_affine and self.tempering is None:
            rows = self.uncertain_rows(where)
            x[rows] = self._drawn(rows, u[rows])
        else:
            for rows in self.chunks(where=where):
                x[rows] = draw_from(Logits(self.log_probs(rows).contiguous()), u[rows])
        return x.view_as(self.x_t)

    @property
    def is_affine(self) -> bool:
        """Whether log-probs at positions with uncertainty are a log-softmax of h·Wᵀ + b with some states excluded, but for tempering."""
        excludes = self.parameterisation.excluded is not None and not self.averaged
        return getattr(self.output_head, "affine", False) and excludes

    @run_eagerly
    def _drawn(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """Draws at rows with uncertainty: [R]. One call of the output head, in which there are as many chunks as the data ask for."""
        position, at_a_time = rows % self.x_t.shape[1], self.rows_at_a_time(chunk_budget(rows.device))

        def read(h: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor]:
            head = SoftmaxRows.of(h, weight, bias, self.num_states, self.parameterisation.excluded)
            chunks = (x.split(at_a_time) for x in (h[:, 0], position, uniform))
            return (torch.cat([head.draw(*chunk) for chunk in zip(*chunks, strict=True)]),)

        return self.output_head(self._modulated(self.component_features(rows), rows), reduction=read)[0]

    def component_features(self, rows: Tensor) -> Tensor:
        """Features before the output head (and before any modulation) at the rows: [P, M, H], or [P, H] with a modulation."""
        positions = self.x_t.shape[1]
        example, position = rows // positions, rows % positions
        if self.modulation is not None:
            return self.features[example, position]
        stacked = self.features.unflatten(0, (-1, self.components))
        return stacked[example, :, position]

    def log_probs_from(self, h: Tensor, rows: Tensor) -> Tensor:
        """As `log_probs`, from the rows' `component_features` (so that a chunk can be recomputed from them)."""
        x_t = self.x_t.flatten()[rows]
        logits = self.output_head(self._modulated(h, rows), rows % self.x_t.shape[1], x_t)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        log_p = self.parameterisation.log_probs(logits, x_t)
        log_p = log_p if self.tempering is None else self.tempering(log_p)
        return self._averaged(log_p) if self.averaged else log_p

    def _modulated(self, h: Tensor, rows: Tensor) -> Tensor:
        """The components' features [P, M, H] from what `component_features` gives of the rows."""
        if self.modulation is None:
            return h
        positions = self.x_t.shape[1]
        return self.modulation.module(h, self.modulation.code[rows // positions], rows % positions)

    def _averaged(self, log_p: Tensor) -> Tensor:
        if self.log_weights is None:
            return log_p.logsumexp(1, keepdim=True) - math.log(self.components)
        return (log_p + self.log_weights.to(log_p)[:, None]).logsumexp(1, keepdim=True)

    def log_p0(self) -> Tensor:
        """All positions of a one-component prediction: [B, D, S]. Small vocabularies only; else read rows."""
        assert self.shape[1] == 1, "a dense table is for one component; call .average() first"
        rows = torch.arange(self.x_t.numel(), device=self.x_t.device)
        return self.log_probs(rows)[:, 0].unflatten(0, self.x_t.shape)


Denoiser = Callable[[Tensor, Tensor, Tensor | None], Prediction]
"""(x_t [B, D], t [B], cond [B] or None) → one-component Prediction; a student's denoiser draws a fresh λ at every call.

While samples are made, predictions have the temperature and top-p that were asked for; a sampler that combines several takes each
`.tempered(None)`, and tempers what it has made of them by `prediction.tempering`.

A call with k·B rows, k copies of the batch one after another, gives all copies of an example the same λ: what
classifier-free guidance by the student itself needs of its two passes.
"""
