"""Features of samples, which metrics of distributions compare: by name in a spec's `features`."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from di4c.contracts import DataSource
from di4c.errors import SpecError
from di4c_plugins.metrics.ngram_features import ngram_features
from di4c_plugins.metrics.reference import reference
from di4c_plugins.timm_models import timm_model
from di4c_plugins.tokenizers.pixels import images_of

FeatureMap = Callable[[Tensor], Tensor]
"""Tokens [n, D] int64 → features [n, F]."""

TIMM = "timm:"


def check_features(features: str, weights: str | None, dimensions: int, data: DataSource, metric: str) -> None:
    """Raises SpecError for what `feature_map` cannot make of these data, before anything is read."""
    if features not in ("pca", "tokens", "ngrams") and ":" not in features:
        allowed = "'pca', 'tokens', 'ngrams', 'timm:MODEL' or 'pkg.module:function'"
        raise SpecError(f"{metric}: features is {features!r}; it must be {allowed}")
    if features == "pca" and not 1 <= dimensions <= min(64, data.num_positions):
        limit = min(64, data.num_positions)
        raise SpecError(f"{metric}: dimensions is {dimensions}; 'pca' needs 1 to {limit} for this data set")
    if features == "ngrams" and dimensions < 1:
        raise SpecError(f"{metric}: dimensions is {dimensions}; 'ngrams' needs at least 1")
    if not features.startswith(TIMM):
        if weights is not None:
            raise SpecError(f"{metric}: weights are those of a timm model; features is {features!r}")
        return
    if not hasattr(data, "shape"):
        raise SpecError(
            f"{metric}: {features!r} needs data that are images; for codes of images there is metric decoded"
        )
    need_weights(features, weights, metric)


def need_weights(features: str, weights: str | None, metric: str) -> None:
    """SpecError without weights: features of a random network say little."""
    if weights is None:
        raise SpecError(f"{metric}: {features!r} needs weights: a file, a folder, or hub")


def feature_map(
    features: str, weights: str | None, dimensions: int, data: Any, max_references: int, metric: str
) -> FeatureMap:
    """What maps tokens to features.

    features: "pca", the first `dimensions` principal components of at most `max_references` training examples; "tokens"; "ngrams", see
    `ngram_features`, of as many training examples;
    "timm:MODEL" with its `weights`, for data with a `shape` (C, H, W); or "pkg.module:function".
    """
    if features == "tokens":
        return lambda x: x.double()
    if features == "pca":
        return principal_components(reference(data, "train", max_references), dimensions)
    if features == "ngrams":
        return ngram_features(reference(data, "train", max_references), dimensions)
    if features.startswith(TIMM):
        network = TimmFeatures(features, weights, metric)
        return lambda x: network(images_of(x, data.shape, data.num_states))
    return imported(features, metric)


class TimmFeatures:
    """Images [n, C, H, W] in [−1, 1] → features of a timm model before its classifier, pooled: [n, F] float32 on the CPU.

    Images are scaled to the size that the weights were trained on, and normalised as they were; a grey image is shown to
    all three channels. Runs on a GPU if there is one, `batch_size` images at a time.
    """

    def __init__(self, features: str, weights: str | None, metric: str, batch_size: int = 64):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = timm_model(features.removeprefix(TIMM), weights, metric)
        self.model, self.batch_size = model.requires_grad_(False).to(self.device), batch_size
        from timm.data import resolve_model_data_config

        config = resolve_model_data_config(model)
        self.size = config["input_size"][1:]
        self.mean, self.std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self._of(part) for part in images.split(self.batch_size)])

    @torch.no_grad()
    def _of(self, images: Tensor) -> Tensor:
        rgb = (images.float().cpu() + 1) / 2
        rgb = rgb.expand(-1, 3, -1, -1) if rgb.shape[1] == 1 else rgb
        scaled = nn.functional.interpolate(rgb, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.model(((scaled - self.mean) / self.std).to(self.device)).float().cpu()


def principal_components(x: Tensor, dimensions: int) -> FeatureMap:
    """The projection on the first principal components of x [n, D], float64."""
    mean = x.double().mean(0)
    covariance = (x.double() - mean).T @ (x.double() - mean) / len(x)
    basis = torch.linalg.eigh(covariance).eigenvectors[:, -dimensions:].flip(1)
    return lambda y: (y.double() - mean) @ basis


def imported(path: str, metric: str) -> FeatureMap:
    """The function "pkg.module:function"; SpecError if there is none."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"{metric}: features {path!r} cannot be imported ({error}); write pkg.module:function"
        ) from error
