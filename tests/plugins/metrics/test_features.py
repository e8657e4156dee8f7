"""Features of timm models in `frechet`, `decoded` and `precision-recall`; weights lie in a file, nothing is downloaded."""

import pytest
import torch

from di4c.contracts import Draws
from di4c.errors import CheckpointError, SpecError
from di4c_plugins.datasets.digits import Digits
from di4c_plugins.metrics.features import TimmFeatures
from di4c_plugins.metrics.frechet import Frechet
from di4c_plugins.metrics.precision_recall import PrecisionRecall
from di4c_plugins.timm_models import timm_model

MODEL = "resnet10t"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    model = timm_model(MODEL, None, "here")
    torch.save(model.state_dict(), path)
    return str(path)


@pytest.fixture
def small(monkeypatch):
    """Images of 32 × 32 for the network, so that the test is quick."""
    import timm.data

    whole = timm.data.resolve_model_data_config
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda m: whole(m) | {"input_size": (3, 32, 32)})


@pytest.mark.parametrize("metric", [Frechet, PrecisionRecall])
def test_timm_features_tell_noise_from_images(metric, weights, small, generation):
    data = Digits()
    made = metric(data=data, features=f"timm:{MODEL}", weights=weights, max_references=60)
    real = data.split("train").batch(torch.arange(60)).x_0
    noise = Draws(0, count=60).integers(17, 64)
    good, bad = made(generation(real)), made(generation(noise))
    better = {
        "frechet_distance": lambda a, b: a < 0.5 * b,
        "precision": lambda a, b: a > b,
        "recall": lambda a, b: a > b,
    }
    assert all(better[name](good[name], bad[name]) for name in good)


def test_grey_is_shown_to_all_channels_and_batches_do_not_matter(weights, small):
    features = TimmFeatures(f"timm:{MODEL}", weights, "here", batch_size=2)
    grey = torch.rand(3, 1, 8, 8) * 2 - 1
    expected = features(grey)
    assert expected.shape == (3, 512) and expected.dtype == torch.float32
    features.batch_size = 64
    assert torch.allclose(features(grey.expand(-1, 3, -1, -1)), expected, atol=1e-4)


@pytest.mark.parametrize("metric", [Frechet, PrecisionRecall])
def test_what_cannot_be_is_told(metric, source, correlated):
    data, images = source(correlated, correlated, 5), Digits()
    for told, given, message in [
        (images, {"features": f"timm:{MODEL}"}, "needs weights: a file, a folder, or hub"),
        (data, {"features": f"timm:{MODEL}", "weights": "hub"}, "needs data that are images"),
        (images, {"features": "pca", "weights": "x.pth"}, "weights are those of a timm model"),
        (images, {"features": "inception"}, "'timm:MODEL'"),
    ]:
        with pytest.raises(SpecError, match=message):
            metric(data=told, **given)
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        metric(data=images, features=f"timm:{MODEL}", weights="nowhere.pth").reference_values(10, Draws(0))


def test_every_checks_of_names_are_made_before_weights_are_read(weights):
    with pytest.raises(SpecError, match="timm has no model"):
        Frechet(data=Digits(), features="timm:resnett", weights=weights).reference_values(10, Draws(0))
