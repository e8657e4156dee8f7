"""Image metrics of decoded codes."""

from types import SimpleNamespace

import pytest
import torch

from di4c.contracts import Batch, DataSource, Draws, Split
from di4c.errors import SpecError
from di4c_plugins.datasets.digits import Digits
from di4c_plugins.metrics.decoded import DecodedImages
from di4c_plugins.metrics.frechet import Frechet


class Uncoded(DataSource, Split):
    """The digits as codes of a tokenizer that loses nothing but the lowest bit."""

    num_positions, num_states, num_classes = 64, 9, None
    dataset = Digits()
    tokenizer = SimpleNamespace(image_shape=(1, 8, 8))

    def split(self, name):
        self.source = self.dataset.split(name)
        return self

    def __len__(self):
        return len(self.source)

    def batch(self, indices, draws=None):
        return Batch(self.source.batch(indices).x_0 // 2)

    def pixels(self, codes):
        return codes * 2


def test_codes_are_measured_as_what_they_decode_to():
    data = Uncoded()
    metric = DecodedImages(data=data, dimensions=8)
    codes = data.split("train").batch(torch.arange(300)).x_0
    values = metric.of(codes)
    assert set(values) == {"decoded_frechet_distance", "decoded_covariance_error", "decoded_pair_tv"}
    direct = Frechet(data=data.dataset, dimensions=8).of(codes * 2)["frechet_distance"]
    assert values["decoded_frechet_distance"] == pytest.approx(direct)
    noise = torch.randint(9, (300, 64), generator=torch.Generator().manual_seed(0))
    assert all(metric.of(noise)[name] > value for name, value in values.items())


def test_the_reference_is_that_of_decoded_training_codes():
    metric = DecodedImages(data=Uncoded(), dimensions=8)
    known = metric.reference_values(200, Draws(0, count=200))
    assert known.keys() == metric.of(torch.zeros(3, 64, dtype=torch.int64)).keys()
    assert 0 < known["decoded_pair_tv"] < 0.3


def test_other_data_are_an_error():
    with pytest.raises(SpecError, match="decode to images"):
        DecodedImages(data=Digits())


def quarters(images):
    """Mean brightness of the four quarters of an image: [n, 4]."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def test_features_of_ones_own_go_batch_by_batch():
    data = Uncoded()
    codes = data.split("train").batch(torch.arange(300)).x_0
    values = [
        DecodedImages(data=data, features=f"{__name__}:quarters", batch_size=size).of(codes)["decoded_frechet_distance"]
        for size in (7, 300)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6) and 0 < values[0] < 0.1
    with pytest.raises(SpecError, match="cannot be imported"):
        DecodedImages(data=data, features="nowhere:nothing")
