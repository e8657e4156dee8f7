"""The image metrics on what codes decode to."""

from torch import Tensor

from di4c.contracts import DataSource, Draws, Generation, Metric
from di4c.errors import SpecError
from di4c_plugins.metrics.frechet import Frechet
from di4c_plugins.metrics.pairwise import Pairwise
from di4c_plugins.metrics.reference import reference, subset


class DecodedImages(Metric):
    """`decoded_frechet_distance`, `decoded_covariance_error`, `decoded_pair_tv`: `frechet` and `pairwise` of decoded images.

    The samples' codes are decoded to levels of the images' data set and compared with its held-out images themselves, so the
    tokenizer's own loss is part of every figure; the floor, decoded codes of real training images, shows how much. For data
    of kind vq-tokens. dimensions: principal components of the pixels; levels, max_positions: as in `pairwise`.
    """

    def __init__(
        self, *, data: DataSource, dimensions: int = 32, levels: int = 4, max_positions: int = 196,
        max_references: int = 10_000,
    ):
        if not hasattr(data, "pixels") or not hasattr(data, "dataset"):
            raise SpecError(f"metric decoded: needs data that decode to images (vq-tokens), found {type(data).__name__}")
        self.data = data
        self.max_references = max_references
        self.frechet = Frechet(data=data.dataset, dimensions=dimensions, max_references=max_references)
        self.pairwise = Pairwise(
            data=data.dataset, levels=levels, max_positions=max_positions, max_references=max_references
        )

    def __call__(self, generation: Generation) -> dict[str, float]:
        return self.errors(generation.x_0)

    def floor(self, num_samples: int, draws: Draws) -> dict[str, float]:
        train = reference(self.data, "train", max(num_samples, self.max_references))
        return self.errors(subset(train, num_samples, draws))

    def errors(self, codes: Tensor) -> dict[str, float]:
        """The three figures of codes [n, D]."""
        pixels = self.data.pixels(codes)
        measured = {"frechet_distance": self.frechet.distance(pixels), **self.pairwise.errors(pixels)}
        return {f"decoded_{name}": value for name, value in measured.items()}
