"""The exact teacher, its data and the enumeration behind them, against sums written out in Python."""

import itertools
import math

import pytest
import torch

from di4c.errors import SpecError
from di4c.testing import check_dataset, check_teacher
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.processes.enumeration import (
    every_state,
    noised_law,
    number_of,
    prior_law,
    reverse_matrix,
    step_matrix,
    total_variation,
)
from di4c_plugins.processes.uniform import Uniform
from di4c_plugins.teachers.enumerable import EnumerableTeacher

DATA = Enumerable(positions=3, states=3, spread=1.5)
PROCESSES = {
    "absorbing": Absorbing(3),
    "uniform": Uniform(3, speed=4.0, ratio_floor=0.0),
    "gaussian": DiscretisedGaussian(
        3, rate_sigma=1.0, target_sigma=2.0, time_base=1.0, time_exponential=4.0, ratio_floor=0.0
    ),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def teacher_of(process, data=DATA) -> EnumerableTeacher:
    backbone = DiT(data.num_positions, process.num_states, width=8, depth=1, heads=2)
    return EnumerableTeacher(process, data.num_positions, data=data, backbone=backbone)


def all_x(process):
    return every_state(process.num_states, 3)


def at(x, t):
    return torch.full((len(x),), t, dtype=torch.float64)


@every_process
def test_it_is_a_teacher(process):
    check_teacher(teacher_of(process))


def test_its_data_are_data():
    check_dataset(DATA)
    counts = number_of(DATA.split("train").batch(torch.arange(4096)).x_0, 3).bincount(minlength=27)
    assert (counts / 4096 - DATA.probs).abs().max() <= 1 / 4096
    assert Enumerable(positions=2, states=2, probs=[1, 0, 0, 1]).probs.tolist() == [0.5, 0, 0, 0.5]
    assert Enumerable(positions=3, states=3, table_seed=1).fingerprint() != DATA.fingerprint()


def test_a_table_of_the_wrong_size_is_refused():
    with pytest.raises(SpecError, match="4 non-negative numbers"):
        Enumerable(positions=2, states=2, probs=[0.5, 0.5])


def test_states_stand_in_raster_order():
    states = every_state(3, 2)
    assert states[5].tolist() == [1, 2] and torch.equal(number_of(states, 3), torch.arange(9))
    with pytest.raises(SpecError, match="too many"):
        every_state(10, 6)


@every_process
def test_marginals_are_those_of_bayes_rule(process):
    """p(x_0^d = v | x_t) = Σ_{x_0: x_0^d = v} P(x_0) ∏_e q(x_t^e | x_0^e) / Z."""
    x_t, t = all_x(process)[5::7], 0.6
    log_p = teacher_of(process).predict(x_t, at(x_t, t)).log_p0()
    q = process.transition(at(x_t[:1], t))[0].tolist()
    for b, row in enumerate(x_t.tolist()):
        weight = {x: float(p) * math.prod(q[a][c] for a, c in zip(x, row, strict=True))
                  for x, p in zip(itertools.product(range(3), repeat=3), DATA.probs, strict=True)}  # fmt: skip
        for d, v in itertools.product(range(3), range(3)):
            expected = sum(w for x, w in weight.items() if x[d] == v) / sum(weight.values())
            assert math.isclose(float(log_p[b, d, v].exp()), expected, rel_tol=1e-9, abs_tol=1e-12)


@every_process
def test_the_true_reverse_process_leads_back_to_the_data(process):
    """q_t · q_{s|t} = q_s, the definition of the reverse kernel, at s > 0 and s = 0; rows sum to 1."""
    teacher, x_t = teacher_of(process), all_x(process)
    posterior = teacher.backbone.posterior(x_t, at(x_t, 0.7))
    q_t = noised_law(process, DATA.probs, DATA.states, 0.7)
    for s in (0.3, 0.0):
        kernel = reverse_matrix(process, posterior, DATA.states, 0.7, s)
        reachable = q_t > 0
        assert torch.allclose(kernel.sum(1)[reachable], torch.ones(int(reachable.sum())).double(), atol=1e-10)
        assert torch.allclose(q_t @ kernel, noised_law(process, DATA.probs, DATA.states, s), atol=1e-10)


@every_process
def test_a_product_step_has_the_true_marginals_and_is_what_posterior_draws(process):
    teacher, x_t = teacher_of(process), all_x(process)
    prediction = teacher.predict(x_t, at(x_t, 0.7))
    product = step_matrix(process, prediction, 0.7, 0.3)
    true = reverse_matrix(process, teacher.backbone.posterior(x_t, at(x_t, 0.7)), DATA.states, 0.7, 0.3)
    reachable = noised_law(process, DATA.probs, DATA.states, 0.7) > 0
    one_hot = torch.nn.functional.one_hot(x_t, process.num_states).double()
    marginals = [torch.einsum("ab,bds->ads", kernel[reachable], one_hot) for kernel in (product, true)]
    assert torch.allclose(*marginals, atol=1e-10)
    assert total_variation(product[reachable], true[reachable]).max() > 1e-3


def test_prior_laws():
    masked = prior_law(PROCESSES["absorbing"], 3)
    assert masked[-1] == 1 and masked.sum() == 1
    assert torch.allclose(prior_law(PROCESSES["uniform"], 3), torch.full((27,), 1 / 27).double())


def test_an_impossible_x_t_keeps_what_is_visible():
    """11 is outside {00, 01, 10}: with both visible the answer is 11, with one masked what the table says of it."""
    data, process = Enumerable(positions=2, states=2, probs=[1, 1, 1, 0]), Absorbing(2)
    x_t = torch.tensor([[1, 1], [1, 2]])
    p = EnumerableTeacher(process, 2, data=data).predict(x_t, at(x_t, 0.5)).log_p0().exp()
    assert p[0, :, 1].min() > 0.999 and p[1, 1, 0] > 0.999


def test_a_step_that_changes_what_is_visible_has_probability_zero():
    process, data = Absorbing(2), Enumerable(positions=2, states=2)
    x_t = torch.tensor([[0, 2]])
    law = step_matrix(process, EnumerableTeacher(process, 2, data=data).predict(x_t, at(x_t, 0.5)), 0.5, 0.25)
    assert abs(float(law.sum()) - 1) < 1e-9 and law[0, number_of(torch.tensor([1, 2]), 3)] == 0


def test_mistakes_are_told():
    with pytest.raises(SpecError, match="data: enumerable"):
        EnumerableTeacher(Absorbing(3), 3, data=object())
    with pytest.raises(SpecError, match=r"teacher\.backbone"):
        EnumerableTeacher(Absorbing(3), 3, data=DATA).student_backbone()
