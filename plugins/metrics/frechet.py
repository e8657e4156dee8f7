"""Fréchet distance between Gaussians fitted to features of samples and of held-out data."""

from functools import cached_property

import torch
from torch import Tensor

from di4c.errors import DataError, SpecError
from di4c_plugins.metrics.features import OfFeatures
from di4c_plugins.metrics.reference import reference


class Frechet(OfFeatures):
    """`frechet_distance`: |μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁ C₂)^½) of features of the samples and of the held-out data.

    features: "pca", the first `dimensions` principal components of the training tokens, taken as numbers and not rescaled
        (for digits: of the pixels in grey levels 0–16); "tokens", the tokens themselves; "ngrams", for text, `dimensions`
        of a TF-IDF table of hashed n-grams; "timm:MODEL", the pooled features of a timm model, for images; or "pkg.module:function", a map of your own from tokens [n, D] to features [n, F].
    weights: of the timm model, a file, a folder, or "hub".

    Biased upwards by the finite sample (see the reference value). At most `max_references` real examples are used.
    """

    called = "frechet"
    higher_is_better = False

    def of(self, x: Tensor) -> dict[str, float]:
        return {"frechet_distance": gaussian_distance(*moments(self._map(x)), *self._held_out)}

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        return moments(self._map(reference(self.data, "test", self.max_references)))


def gaussian_distance(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> float:
    """Squared Fréchet (Wasserstein-2) distance of two Gaussians, from means [F] and covariances [F, F] in float64.

    tr (C₁ C₂)^½ = tr (C₁^½ C₂ C₁^½)^½, whose argument is symmetric and positive: eigenvalues suffice, and a singular
    covariance does no harm. Raises DataError for features that are NaN or infinite.
    """
    for whose, cov in {"the samples": cov_1, "the held-out data": cov_2}.items():
        if not cov.isfinite().all():
            raise DataError(f"Fréchet distance: the features of {whose} are NaN or infinite")
    values, vectors = torch.linalg.eigh(cov_1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_2 @ root).clamp_min(0).sqrt().sum()
    squared = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * cross
    return float(squared.clamp_min(0))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [F] and unbiased covariance [F, F], float64. SpecError for a single example, which has none."""
    if len(features) < 2:
        raise SpecError(f"metric frechet: the covariance of {len(features)} example; at least 2 are needed")
    features = features.double()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], -1)
