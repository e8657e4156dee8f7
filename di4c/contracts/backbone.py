"""The network: features first, the output head apart, so that losses can take its logits chunk by chunk."""

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn


@dataclass(frozen=True)
class Modulation:
    """λ acting on the features after the network.

    module: rows h [P, H], codes [P, M, C] and positions d [P] int64 → features of the components [P, M, H].
    """

    module: nn.Module
    code: Tensor  # [B, M, C]


@dataclass(frozen=True)
class Context:
    """What a student head hands a backbone. A backbone declares in `accepts` which of the fields it can take.

    components: M; the backbone's batch grows from B to B·M (b major) where λ enters.
    tokens: [B·M, K, H] extra tokens, appended to the sequence and dropped from the features.
    embedding: [B·M, C] joins the time embedding, C = the backbone's `embedding_width`.
    start: the first block that sees λ; the blocks before it run once an example (B, not B·M).
    modulation: applied to the features chunk by chunk after the backbone, which ignores it.
    trunk: what the blocks before `start` left, where they have run already; only_trunk: run them alone. See TwoPartBackbone.
    """

    components: int
    tokens: Tensor | None = None
    embedding: Tensor | None = None
    start: int = 0
    modulation: Modulation | None = None
    trunk: tuple[Tensor, ...] | None = None
    only_trunk: bool = False

    @property
    def enters(self) -> bool:
        """Whether λ enters the backbone itself, whose batch then grows to B·M."""
        return self.tokens is not None or self.embedding is not None

    def split(self, size: int, trunk: tuple[Tensor, ...] | None = None) -> list["Context"]:
        """The contexts of at most `size` components each, in their order, with that trunk and without the modulation."""
        first = range(0, self.components, size)

        def part(value: Tensor | None, m: int) -> Tensor | None:
            return None if value is None else value.unflatten(0, (-1, self.components))[:, m : m + size].flatten(0, 1)

        return [
            replace(self, components=min(size, self.components - m), tokens=part(self.tokens, m), embedding=part(self.embedding, m),
                    modulation=None, trunk=trunk)
            for m in first
        ]  # fmt: skip


class Backbone(nn.Module):
    """A network whose `forward` gives features and whose child `readout` gives the logits of any rows.

    Attributes a subclass sets:
        width: H, the last dimension of the features.
        depth: number of blocks (what `Context.start` counts).
        embedding_width: C, width of the time or conditioning embedding (0 if there is none).
        reads_time: whether its features depend on t; one that ignores t says False, and samplers may keep its predictions.
        accepts: the names of the `Context` fields it takes, of {"tokens", "embedding", "start", "trunk"}.
        replayable: whether a CUDA graph may stand for its forward without gradient (engine/graphs.py). That holds if the forward has no
            host synchronisation (.item(), boolean indices, tensors made of host numbers, which torch.where with a number does too), no
            data-dependent shape, in eval mode no random numbers of its own, and depends on arguments, parameters and buffers alone.
        readout: the output head (its weights have this name), called as readout(h, positions, x_t): features h [P, M, H], positions d [P] int64
            and visible tokens x_t [P] int64 → logits [P, M, S]. If it is affine, logits = h·Wᵀ + b, let it say so
            (`affine = True`) and take a Reduction by the keyword `reduction`: see AffineOutputHead.

    Every parameter belongs to a submodule that is *called*, or to this module itself (whose forward is called): ZeRO-3
    gathers weights in those calls. Dropout is by nn.Dropout modules, on tensors [B·n, …]: training replaces them by ones whose masks
    belong to examples, and can replace neither functional dropout nor SDPA's.
    """

    width: int
    depth: int = 0
    embedding_width: int = 0
    reads_time: bool = True
    accepts: frozenset = frozenset()
    replayable: bool = False
    readout: nn.Module

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Tensor:
        """Features: [B·M, D, H] (b major; [B, D, H] without context or when only its modulation is set).

        x_t [B, D] int64, t [B] in [0, 1], cond [B] int64 class labels (−1: no label) or None.
        """

    def __getstate__(self) -> dict:
        """What copies and pickles are made of: not a forward that was put before the class's (engine/graphs.py)."""
        return {name: value for name, value in super().__getstate__().items() if name != "forward"}

    def for_student(self) -> "Backbone":
        """A trainable copy with the same weights that λ can enter; layers that only a student has are added to it."""
        return copy.deepcopy(self).requires_grad_(True)


def backbone_lacks(backbone: nn.Module) -> str | None:
    """What a backbone lacks of the two things that everybody takes from it, width and readout, in words; None: nothing."""
    name, head = type(backbone).__name__, getattr(backbone, "readout", None)
    if getattr(backbone, "width", None) is None:
        return f"{name} sets no `width`: H, the last dimension of its features"
    if not isinstance(head, nn.Module):
        return f"{name} has no child `readout`, which makes logits of its features; a linear one is di4c.contracts.AffineOutputHead"
    try:
        inspect.signature(head.forward).bind(None, None, None)
    except TypeError:
        told = "is not called as readout(h, positions, x_t); a linear one is di4c.contracts.AffineOutputHead(width, num_states)"
        return f"the `readout` of {name}, {type(head).__name__}, {told}"
    return None


class TwoPartBackbone(Backbone):
    """A backbone that takes "start" and whose blocks before it run once an example, however the components are grouped.

    Called with `Context.only_trunk` it runs those blocks and returns what they leave; called with that as `Context.trunk`, for as
    many groups of components as there are, it goes on from there. Both are calls of the module, so that ZeRO-3 gathers and
    torch.compile compiles. A subclass writes the two parts and puts "start" and "trunk" into `accepts`.
    """

    def forward(
        self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """As a Backbone's, or the trunk."""
        joined = context if context is not None and context.modulation is None else None
        if joined is None or joined.trunk is None:
            trunk = self.before(x_t, t, cond, self.depth if joined is None else joined.start)
        else:
            trunk = joined.trunk
        return trunk if joined is not None and joined.only_trunk else self.after(trunk, joined)

    @abstractmethod
    def before(self, x_t: Tensor, t: Tensor, cond: Tensor | None, start: int) -> tuple[Tensor, ...]:
        """What the blocks before number `start` leave, a tuple of tensors [B, …]; λ is not known yet."""

    @abstractmethod
    def after(self, trunk: tuple[Tensor, ...], context: Context | None) -> Tensor:
        """The features [B·M, D, H] from the trunk: λ joins, and the blocks from `context.start` on run. None: [B, D, H], no block is left."""


class IdentityOutputHead(nn.Module):
    """For networks that expose no features: the features are the logits."""

    def forward(self, h: Tensor, positions: Tensor, x_t: Tensor) -> Tensor:
        return h


Reduction = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, ...]]
"""(h, W, b) → any tensors, for an output head logits = h·Wᵀ + b: W [≥ S, H], b [≥ S] or [≥ D, ≥ S] or None, of which the first S
states (and D positions) count."""


class AffineRows(nn.Module):
    """logits = h·Wᵀ + b of `weight` and `bias`; called with a `reduction`, it returns reduction(h, W, b) instead.

    A loss can so go over all rows, with gradients written by hand, within one call: under ZeRO-3 that is one gathering of W.
    A subclass has the two, and other `logits` where b depends on positions or not all rows of W count.
    """

    affine = True

    def forward(
        self,
        h: Tensor,
        positions: Tensor | None = None,
        x_t: Tensor | None = None,
        *,
        reduction: Reduction | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        if reduction is not None:
            return reduction(h, self.weight, self.bias)
        return self.logits(h, positions)

    def logits(self, h: Tensor, positions: Tensor | None) -> Tensor:
        """Logits [P, M, S] of features [P, M, H] at positions [P]."""
        return nn.functional.linear(h, self.weight, self.bias)


class AffineOutputHead(AffineRows, nn.Linear):
    """AffineRows with parameters of its own."""
