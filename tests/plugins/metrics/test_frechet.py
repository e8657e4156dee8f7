import pytest
import torch

from di4c.contracts import Draws
from di4c.errors import DataError, SpecError
from di4c_plugins.metrics.features import principal_components
from di4c_plugins.metrics.frechet import Frechet, gaussian_distance


def random_covariance(size, seed):
    root = Draws(seed, count=size).normal(size)
    return root @ root.T / size


def half_tokens(x):
    return x.double() / 2


def test_identical_sets_are_at_distance_zero(source, generation, correlated):
    metric = Frechet(data=source(correlated, correlated, 5), dimensions=4)
    assert metric(generation(correlated))["frechet_distance"] < 1e-9


@pytest.mark.parametrize("features", ["pca", "tokens", "ngrams"])
def test_a_single_example_has_no_covariance(source, generation, correlated, features):
    few = lambda train, test: Frechet(data=source(train, test, 5), features=features, dimensions=2)
    for metric, samples in ((few(correlated, correlated), 1), (few(correlated, correlated[:1]), 2)):
        with pytest.raises(SpecError, match="1 example; at least 2"):
            metric(generation(correlated[:samples]))
    assert few(correlated, correlated[:2])(generation(correlated[2:4]))["frechet_distance"] > 0


def test_closed_form_of_commuting_gaussians():
    """Diagonal covariances: |μ₁ − μ₂|² + Σ (σ₁ − σ₂)²."""
    draws = Draws(1, count=5)
    mean_1, mean_2 = draws.normal(), draws.normal()
    sigma_1, sigma_2 = draws.uniform(), draws.uniform()
    expected = (mean_1 - mean_2).square().sum() + (sigma_1 - sigma_2).square().sum()
    value = gaussian_distance(mean_1, sigma_1.square().diag(), mean_2, sigma_2.square().diag())
    assert value == pytest.approx(float(expected), rel=1e-10)


def test_agrees_with_the_general_matrix_square_root():
    """tr (C₁C₂)^½ from the eigenvalues of the unsymmetric product, which are real and non-negative."""
    first, second = random_covariance(6, 2), random_covariance(6, 3)
    cross = torch.linalg.eigvals(first @ second).real.clamp_min(0).sqrt().sum()
    expected = first.trace() + second.trace() - 2 * cross
    zero = torch.zeros(6, dtype=torch.float64)
    assert gaussian_distance(zero, first, zero, second) == pytest.approx(float(expected), rel=1e-9)
    assert gaussian_distance(zero, second, zero, first) == pytest.approx(float(expected), rel=1e-9)


def test_singular_covariances_are_allowed():
    zero = torch.zeros(3, dtype=torch.float64)
    rank_one = torch.ones(3, 3, dtype=torch.float64)
    assert gaussian_distance(zero, rank_one, zero, rank_one) == pytest.approx(0, abs=1e-9)
    assert gaussian_distance(zero, rank_one * 0, zero, rank_one) == pytest.approx(3, abs=1e-9)


def test_principal_components_keep_the_largest_variances():
    x = Draws(4, count=500).normal(4) * torch.tensor([1.0, 5.0, 0.1, 3.0])
    variances = principal_components(x, 2)(x).var(0)
    assert variances[0] > variances[1]
    assert variances[1] == pytest.approx(9, rel=0.2)


def test_the_reference_lies_below_destroyed_samples(source, generation, correlated):
    metric = Frechet(data=source(correlated[:2000], correlated[2000:], 5), dimensions=4)
    noise = Draws(0, count=2000).integers(5, 6)
    assert (
        metric.reference_values(2000, Draws(0))["frechet_distance"]
        < 0.1 * metric(generation(noise))["frechet_distance"]
    )


def test_feature_map_of_the_users_own(source, generation, correlated):
    data = source(correlated[:2000], correlated[2000:], 5)
    halved = Frechet(data=data, features=f"{__name__}:half_tokens")(generation(correlated[:100]))
    plain = Frechet(data=data, features="tokens")(generation(correlated[:100]))
    assert halved["frechet_distance"] == pytest.approx(plain["frechet_distance"] / 4, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "inception"}, "'pca', 'tokens', 'ngrams', 'timm:MODEL' or"),
        ({"dimensions": 7}, "1 to 6"),
        ({"dimensions": 0}, "1 to 6"),
    ],
)
def test_bad_options_say_what_is_allowed(source, correlated, options, message):
    with pytest.raises(SpecError, match=message):
        Frechet(data=source(correlated, correlated, 5), **{"dimensions": 4, **options})


def test_feature_map_that_does_not_import(source, generation, correlated):
    metric = Frechet(data=source(correlated, correlated, 5), features="nowhere:features")
    with pytest.raises(SpecError, match="nowhere:features"):
        metric(generation(correlated))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_told(number):
    """torch's eigenvalues would fail on them, or say nothing."""
    mean, good, odd = torch.zeros(2).double(), torch.eye(2).double(), torch.eye(2).double()
    odd[0, 0] = number
    for pair, whose in (((odd, good), "samples"), ((good, odd), "held-out data")):
        with pytest.raises(DataError, match=f"features of the {whose} are NaN or infinite"):
            gaussian_distance(mean, pair[0], mean, pair[1])
