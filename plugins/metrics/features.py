"""Features of samples, which metrics of distributions compare: by name in a spec's `features`."""

import importlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from di4c.contracts import DataSource
from di4c.errors import SpecError
from di4c_plugins.metrics.ngram_features import ngram_features
from di4c_plugins.metrics.reference import OfTokens, reference
from di4c_plugins.timm_models import timm_model
from di4c_plugins.tokenizers.pixels import images_of

FeatureMap = Callable[[Tensor], Tensor]
"""Tokens [n, D] int64 → features [n, F]."""

TIMM = "timm:"


class OfFeatures(OfTokens):
    """Base of metrics in a space of features. called: the metric's name, for messages.

    features: "pca", the first `dimensions` principal components of at most `max_references` training examples; "tokens"; "ngrams", see
    `ngram_features`, of as many training examples;
    "timm:MODEL" with its `weights`, for data with a `shape` (C, H, W); or "pkg.module:function".
    """

    called: str
    data: Any

    def __init__(
        self,
        *,
        data: DataSource,
        features: str = "pca",
        weights: str | None = None,
        dimensions: int = 16,
        max_references: int = 10_000,
    ):
        self.data, self.features, self.weights = data, features, weights
        self.dimensions, self.max_references = dimensions, max_references
        self._check()

    def _check(self) -> None:
        """SpecError for what no features can be made of, before anything is read."""
        features, limit = self.features, min(64, self.data.num_positions)
        if features not in ("pca", "tokens", "ngrams") and ":" not in features:
            allowed = "'pca', 'tokens', 'ngrams', 'timm:MODEL' or 'pkg.module:function'"
            raise SpecError(f"{self.called}: features is {features!r}; it must be {allowed}")
        if features == "pca" and not 1 <= self.dimensions <= limit:
            raise SpecError(
                f"{self.called}: dimensions is {self.dimensions}; 'pca' needs 1 to {limit} for this data set"
            )
        if features == "ngrams" and self.dimensions < 1:
            raise SpecError(f"{self.called}: dimensions is {self.dimensions}; 'ngrams' needs at least 1")
        if not features.startswith(TIMM):
            if self.weights is not None:
                raise SpecError(f"{self.called}: weights are those of a timm model; features is {features!r}")
            return
        if not hasattr(self.data, "shape"):
            raise SpecError(
                f"{self.called}: {features!r} needs data that are images; for codes of images there is metric decoded"
            )
        need_weights(features, self.weights, self.called)

    @cached_property
    def _map(self) -> FeatureMap:
        """What maps tokens to features."""
        if self.features == "tokens":
            return lambda x: x.double()
        if self.features in TABLES:
            return TABLES[self.features](reference(self.data, "train", self.max_references), self.dimensions)
        if self.features.startswith(TIMM):
            network = TimmFeatures(self.features, self.weights, self.called)
            return lambda x: network(images_of(x, self.data.shape, self.data.num_states))
        return imported(self.features, self.called)


def need_weights(features: str, weights: str | None, metric: str) -> None:
    """SpecError without weights: features of a random network say little."""
    if weights is None:
        raise SpecError(f"{metric}: {features!r} needs weights: a file, a folder, or hub")


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


TABLES = {"pca": principal_components, "ngrams": ngram_features}
"""Features that are fitted to training data."""


def imported(path: str, metric: str) -> FeatureMap:
    """The function "pkg.module:function"; SpecError if there is none."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"{metric}: features {path!r} cannot be imported ({error}); write pkg.module:function"
        ) from error
