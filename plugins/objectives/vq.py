"""Training an image tokenizer: a VQ-VAE with an averaged codebook."""

import torch
from torch import Tensor

from di4c.contracts import Batch, Draws, Objective, ProbeBatch
from di4c.errors import SpecError
from di4c_plugins.objectives.codebook import CodebookAverage, one_hot
from di4c_plugins.tokenizers.pixels import images_of
from di4c_plugins.tokenizers.vqgan import VQGAN


class VQTokenizer(Objective):
    """mean |x − x̂|² + β·mean ‖z − sg[e]‖², the codebook e moving by averages of the latents z assigned to it.

    x are the images, x̂ their reconstruction through the nearest code vectors, the gradient passed straight through the
    quantiser (van den Oord et al. 2017, eq. 3 and appendix A.1). Codes that are hardly used are put where data lie. The
    perceptual and adversarial terms of a VQGAN are not here: images of a trained tokenizer are as sharp as their
    squared error asks for. Units: squared pixel values in [−1, 1], not nats.

    The data give x as levels 0, …, S − 1 in the order (c, h, w); level v is the pixel value 2v/(S − 1) − 1. The
    codebook is a buffer, which bf16 training would round: train in fp32 or with DeepSpeed's torch_autocast.
    """

    def __init__(
        self,
        num_positions: int,
        num_states: int,
        *,
        tokenizer: VQGAN,
        commitment: float = 0.25,
        decay: float = 0.99,
        restart_below: float = 0.01,
    ):
        super().__init__()
        channels, height, width = tokenizer.image_shape
        if channels * height * width != num_positions:
            raise SpecError(
                f"objective.tokenizer: images of {channels} × {height} × {width} are {channels * height * width} "
                f"values, but the data have {num_positions} positions; check image_size and channels"
            )
        self.model = tokenizer
        self.num_states = num_states
        self.commitment = commitment
        self.codebook = CodebookAverage(
            tokenizer.num_codes, tokenizer.quantize.embedding.weight.shape[1], decay=decay, restart_below=restart_below
        )

    def forward(self, batch: Batch, draws: Draws, step: int) -> dict[str, Tensor]:
        """{"loss": [B], "reconstruction": [B], "commitment": [B]}; moves the codebook when training."""
        images = self.images(batch.x_0)
        latents = self.model.latents(images)
        codes = self.model.quantize(latents)
        if self.training:
            moved = self.codebook(latents.detach(), codes, draws)
            self.model.quantize.embedding.weight.copy_(moved)
        vectors = self.model.quantize.embedding(codes).movedim(-1, 1).to(latents)
        restored = self.model.images(latents + (vectors - latents).detach())
        reconstruction = (restored - images).square().flatten(1).mean(1)
        commitment = (latents - vectors.detach()).square().flatten(1).mean(1)
        return {
            "loss": reconstruction + self.commitment * commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
        }

    @torch.no_grad()
    def diagnostics(self, batch: Batch, draws: Draws, probe_batch: ProbeBatch | None = None) -> dict[str, float]:
        """Peak signal-to-noise ratio, and how evenly the batch's codes are used: 2^entropy of their frequencies."""
        images = self.images(batch.x_0)
        codes = self.model.encode(images)
        error = (self.model.decode(codes).clamp(-1, 1) - images).square().mean()
        frequency = one_hot(codes.flatten(), self.model.num_codes).mean(0)
        entropy = -(frequency * frequency.clamp_min(1e-12).log2()).sum()
        return {"psnr_db": float(10 * torch.log10(4 / error)), "codes_in_effect": float(2**entropy)}

    def images(self, x_0: Tensor) -> Tensor:
        """Images [B, C, H, W] in [−1, 1] of levels x_0 [B, D]."""
        return images_of(x_0, self.model.image_shape, self.num_states)
