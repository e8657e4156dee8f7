"""The image metrics on what codes decode to."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from di4c.contracts import DataSource
from di4c.errors import SpecError
from di4c_plugins.metrics.features import TIMM, TimmFeatures, imported, need_weights
from di4c_plugins.metrics.frechet import Frechet, gaussian_distance, moments
from di4c_plugins.metrics.pairwise import Pairwise
from di4c_plugins.metrics.reference import OfTokens, evenly
from di4c_plugins.tokenizers.pixels import images_of

ImageFeatures = Callable[[Tensor], Tensor]
"""Images [n, C, H, W] float32 in [−1, 1] → features [n, F]."""


class DecodedImages(OfTokens):
    """`decoded_frechet_distance`, `decoded_covariance_error`, `decoded_pair_tv`: as `frechet` and `pairwise`.

    The samples' codes are decoded to levels of the images' data set and compared with its held-out images themselves,
    so the tokenizer's own loss is part of every figure; the reference value, decoded codes of real training images, shows how
    much. For data of kind vq-tokens. dimensions: principal components of the pixels; levels, max_positions: as in
    `pairwise`.

    features: "timm:MODEL" or "pkg.module:function", which map images to features (an Inception network's, for FID); then the
    Fréchet distance alone is measured, `batch_size` images at a time, since large images do not fit in memory together.
    weights: of the timm model, a file, a folder, or "hub".
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        data: DataSource,
        features: str | None = None,
        weights: str | None = None,
        dimensions: int = 32,
        levels: int = 4,
        max_positions: int = 196,
        max_references: int = 10_000,
        batch_size: int = 64,
    ):
        if not hasattr(data, "pixels") or not hasattr(data, "dataset"):
            raise SpecError(f"metric decoded: needs data that decode to images; found {type(data).__name__}")
        self.data: Any = data
        self.max_references, self.batch_size = max_references, batch_size
        by_timm = features is not None and features.startswith(TIMM)
        if by_timm:
            need_weights(features, weights, "metric decoded")
        self._named = features if features is None or by_timm else imported(features, "metric decoded")
        self.weights = weights
        self.frechet = Frechet(data=data.dataset, dimensions=dimensions, max_references=max_references)
        self.pairwise = Pairwise(
            data=data.dataset, levels=levels, max_positions=max_positions, max_references=max_references
        )

    def of(self, codes: Tensor) -> dict[str, float]:
        if self._named is not None:
            decoded = (self._images(self.data.pixels(part)) for part in codes.split(self.batch_size))
            return {"decoded_frechet_distance": gaussian_distance(*self._moments(decoded), *self._held_out)}
        pixels = self.data.pixels(codes)
        measured = self.frechet.of(pixels) | self.pairwise.of(pixels)
        return {f"decoded_{name}": value for name, value in measured.items()}

    @cached_property
    def _features(self) -> ImageFeatures:
        """A function of one's own, or the timm model, read when it is first needed."""
        if callable(self._named):
            return self._named
        return TimmFeatures(self._named, self.weights, "metric decoded", self.batch_size)

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the held-out images' features."""
        examples = self.data.dataset.split("test")
        parts = evenly(len(examples), self.max_references).split(self.batch_size)
        return self._moments(self._images(examples.batch(part).x_0) for part in parts)

    def _moments(self, images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean [F] and unbiased covariance [F, F] of the features of batches of images, float64."""
        return moments(torch.cat([self._features(batch).detach().cpu() for batch in images]))

    def _images(self, x: Tensor) -> Tensor:
        return images_of(x, self.data.tokenizer.image_shape, self.data.dataset.num_states)
