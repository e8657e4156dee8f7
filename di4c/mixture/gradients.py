"""The gradients of a pass over the rows, summed over its chunks by library products."""

from dataclasses import dataclass

import torch
from torch import Tensor

from di4c.kernels.adding import add_lines
from di4c.kernels.products import add_product
from di4c.kernels.rows import with_margin
from di4c.mixture.affine import Affine
from di4c.mixture.rows import Rows


@dataclass
class Gradients:
    """Gradients with respect to features, weight and bias, summed over chunks; None where not needed. Sums are float32 at least."""

    affine: Affine
    features: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def zeros(cls, features: Tensor, affine: Affine, needed: tuple[bool, ...]) -> "Gradients":
        def zero(like: Tensor | None, wanted: bool) -> Tensor | None:
            if like is None or not wanted:
                return None
            return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))

        of_features = torch.zeros_like(features) if needed[0] else None
        return cls(affine, of_features, zero(affine.weight, needed[1]), zero(affine.bias, needed[2]))

    def add(self, rows: Rows, chunk: slice, h: Tensor, gradient: Tensor) -> None:
        """A chunk's part, from features h [P, M, H] and the logits' gradient [P, M, S]."""
        states, flat = self.affine.num_states, with_margin(gradient.flatten(0, 1))
        width = flat.shape[1]
        if self.features is not None:
            back = flat.to(self.affine.weight.dtype) @ self.affine.weight[:width]
            self.features[rows.example[chunk], :, rows.column[chunk]] = back.view(*gradient.shape[:2], -1)
        if self.weight is not None:
            add_product(self.weight[:width], flat, h.flatten(0, 1))
        if self.bias is not None and self.bias.dim() == 1:
            self.bias[:states] += gradient.sum((0, 1), dtype=self.bias.dtype)
        elif self.bias is not None:
            add_lines(self.bias[:, :states], rows.position[chunk], gradient.sum(1, dtype=self.bias.dtype))

    def result(self) -> tuple[Tensor | None, ...]:
        """(features, weight, bias) in the dtypes of what they are gradients of."""
        pairs = (self.weight, self.affine.weight), (self.bias, self.affine.bias)
        return self.features, *(None if g is None else g.to(of.dtype) for g, of in pairs)
