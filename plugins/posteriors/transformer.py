"""A small transformer that reads x beside x_t."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from di4c.contracts import ForwardProcess, LambdaSampler, Posterior
from di4c.errors import SpecError
from di4c_plugins.backbones.dit import Block, Conditioning, ModulatedNorm, grid_angles
from di4c_plugins.backbones.rotary import Rotary
from di4c_plugins.posteriors.parameters import parameter_network


class Transformer(Posterior):
    """Blocks of the backbone `dit` over the sum of the embeddings of x^d and x_t^d, conditioned on t and label; a hidden layer reads all positions.

    It may be smaller than the student's network: all that it says is λ. spread, noise: how far apart the q of different examples are
    at the start, in standard deviations of the prior, and how wide each is.
    """

    def __init__(
        self,
        latent: LambdaSampler,
        process: ForwardProcess,
        num_positions: int,
        num_classes: int | None = None,
        *,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 3.0,
        dropout: float = 0.0,
        spread: float = 1.0,
        noise: float = 0.2,
    ):
        if min(width, depth, heads) < 1 or width % heads or (width // heads) % 2:
            raise SpecError(
                f"posterior transformer: width {width} over {heads} heads must give an even whole number, and depth {depth} be at least 1"
            )
        super().__init__()
        self.tokens = nn.Embedding(process.num_states, width)
        self.noised = nn.Embedding(process.num_states, width)
        self.positions = nn.Embedding(num_positions, width)
        self.conditioning = Conditioning(width, num_classes, True)
        self.rotary = Rotary(grid_angles([num_positions], width // heads), heads, "neighbours")
        self.blocks = nn.ModuleList(Block(width, mlp_ratio, dropout) for _ in range(depth))
        self.final = ModulatedNorm(width)
        self.parameters_of = parameter_network(num_positions * width, width, latent, spread=spread, noise=noise)

    def forward(self, x: Tensor, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        size, samples, positions = x.shape
        seen = self.noised(x_t) + self.positions(torch.arange(positions, device=x.device))
        h = (self.tokens(x) + seen[:, None]).flatten(0, 1)
        c = F.silu(self.conditioning(t, cond)).repeat_interleave(samples, 0)
        turns = self.rotary(positions, 0, h)
        for block in self.blocks:
            h = block(h, c, turns)
        return self.parameters_of(self.final(h, c).flatten(1)).unflatten(0, (size, samples))
