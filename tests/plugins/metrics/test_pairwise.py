import time

import pytest
import torch

from di4c.contracts import Draws
from di4c.errors import SpecError
from di4c_plugins.metrics.pairwise import Pairwise


def shuffled_positions(x, seed=0):
    """The same marginals, no dependence: every position permuted over the examples on its own."""
    order = Draws(seed, count=x.shape[1]).permutation(len(x)).T
    return x.gather(0, order)


def brute_force(x, y, states, levels):
    """The definitions, pair by pair."""
    covariance, variation, pairs = 0.0, 0.0, 0
    for d in range(x.shape[1]):
        for e in range(d + 1, x.shape[1]):
            cov = [torch.cov(z[:, [d, e]].T.double(), correction=0)[0, 1] for z in (x, y)]
            covariance += float((cov[0] - cov[1]).abs())
            tables = []
            for z in (x, y):
                cell = (z[:, d] * levels // states) * levels + z[:, e] * levels // states
                tables.append(cell.bincount(minlength=levels * levels).double() / len(z))
            variation += float((tables[0] - tables[1]).abs().sum() / 2)
            pairs += 1
    return covariance / pairs, variation / pairs


def test_zero_for_the_held_out_data_themselves(source, generation, correlated):
    metric = Pairwise(data=source(correlated, correlated, 5))
    assert metric(generation(correlated)) == {"covariance_error": 0.0, "pair_tv": 0.0}


def test_matches_the_definition(source, generation, correlated):
    x, y = correlated[:700], correlated[700:1500]
    values = Pairwise(data=source(x, y, 5), levels=3)(generation(x))
    covariance, variation = brute_force(x, y, 5, 3)
    assert abs(values["covariance_error"] - covariance) < 1e-9
    assert abs(values["pair_tv"] - variation) < 1e-6


def test_covariance_is_left_out_where_states_are_no_numbers(source, generation, correlated):
    metric = Pairwise(data=source(correlated, correlated, 5), covariance=False)
    assert metric(generation(correlated)) == {"pair_tv": 0.0} and metric.reference_values(100, Draws(0)).keys() == {
        "pair_tv"
    }


def test_sees_lost_correlation_that_marginals_hide(source, generation, correlated):
    metric = Pairwise(data=source(correlated[:2000], correlated[2000:], 5))
    known = metric.reference_values(2000, Draws(0))
    lost = metric(generation(shuffled_positions(correlated[:2000])))
    assert lost["covariance_error"] > 5 * known["covariance_error"]
    assert lost["pair_tv"] > 4 * known["pair_tv"]


def test_the_reference_grows_as_the_sample_shrinks(source, correlated):
    metric = Pairwise(data=source(correlated[:2000], correlated[2000:], 5))
    assert metric.reference_values(50, Draws(0))["pair_tv"] > 2 * metric.reference_values(2000, Draws(0))["pair_tv"]
    assert metric.reference_values(50, Draws(0)) == metric.reference_values(50, Draws(0))


def test_long_sequences_are_measured_on_some_positions(source, generation, correlated):
    metric = Pairwise(data=source(correlated, correlated, 5), max_positions=3)
    assert metric.positions.tolist() == [0, 2, 4]
    assert metric(generation(correlated))["pair_tv"] == 0


def test_fast_enough_for_a_sweep(source, generation):
    x = Draws(0, count=2000).integers(17, 64)
    metric = Pairwise(data=source(x, x[:600], 17))
    metric(generation(x))
    start = time.process_time()
    metric(generation(x))
    assert time.process_time() - start < 1  # of this process alone, however busy the machine


def test_pairs_that_cannot_be_are_refused(source, correlated):
    """One position has no pair, one level no difference, no example no frequencies: each was nan or 0 without a word."""
    one, data = correlated[:, :1], source(correlated, correlated, 5)
    with pytest.raises(SpecError, match="1 positions"):
        Pairwise(data=source(one, one, 5))
    for options in ({"max_positions": 1}, {"levels": 1}):
        with pytest.raises(SpecError, match="each is at least 2"):
            Pairwise(data=data, **options)
    with pytest.raises(SpecError, match="max_references is 0"):
        Pairwise(data=data, max_references=0).of(correlated)
