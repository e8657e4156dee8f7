import pytest

from di4c.contracts import Draws
from di4c.errors import SpecError
from di4c.testing import check_metric
from di4c_plugins.metrics.precision_recall import PrecisionRecall, covered


def brute(points, centres, k):
    """The same share, point by point."""
    inside = 0
    for p in points:
        balls = []
        for i, c in enumerate(centres):
            others = sorted(float((c - d).norm()) for j, d in enumerate(centres) if j != i)
            balls.append(float((p - c).norm()) <= others[k - 1])
        inside += any(balls)
    return inside / len(points)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_coverage_is_what_it_says(neighbours):
    draws = Draws(0, count=20)
    points, centres = draws.child("a").normal(2), draws.child("b").normal(2) + 0.7
    assert covered(points, centres, neighbours) == pytest.approx(brute(points, centres, neighbours))


def test_samples_like_the_data_have_both(source, generation, correlated):
    metric = PrecisionRecall(data=source(correlated[:1000], correlated[1000:2000], 5), features="tokens")
    values = metric(generation(correlated[2000:3000]))
    assert values["precision"] > 0.9 and values["recall"] > 0.9
    check_metric(metric, generation(correlated[2000:3000]))


def test_noise_lacks_precision_and_few_modes_lack_recall(source, generation):
    modes = Draws(0, count=600).integers(2, 1) * 8 + Draws(1, count=600).integers(3, 4)  # 0–2 or 8–10, all four alike
    metric = PrecisionRecall(data=source(modes, modes.flip(0), 11), features="tokens")
    one = metric(generation(modes[modes[:, 0] < 5]))
    assert one["precision"] > 0.9 and one["recall"] < 0.75
    noise = metric(generation(Draws(2, count=600).integers(11, 4)))
    assert noise["precision"] < 0.6


def test_sets_are_made_equally_large(source, generation, correlated):
    """A set that repeats its samples has no larger support than one of the reference's size."""
    metric = PrecisionRecall(data=source(correlated, correlated[:500], 5), features="pca", dimensions=3)
    many = metric(generation(correlated[1000:4000]))
    assert many == metric(generation(correlated[1000:4000:6]))


def test_too_few_samples_are_told(source, generation, correlated):
    metric = PrecisionRecall(data=source(correlated, correlated, 5), dimensions=2)
    with pytest.raises(SpecError, match="3 samples; more than neighbours"):
        metric(generation(correlated[:3]))
    with pytest.raises(SpecError, match="at least 1"):
        PrecisionRecall(data=source(correlated, correlated, 5), dimensions=2, neighbours=0)


def test_it_is_registered():
    from di4c.config.registry import Registry

    assert Registry.default([]).resolve("metrics", "precision-recall") is PrecisionRecall
