"""The teacher's own samples as the reference law."""

from dataclasses import replace

import pytest
import torch

from di4c.draws import Draws
from di4c.errors import DataError, SpecError
from di4c.losses.rollouts import Rollouts, load_or_roll_out
from di4c_plugins.samplers.ancestral import Ancestral
from tests.losses.test_objective import batch, make
from tests.systems import tiny_teacher

OPTIONS = Rollouts(number=40, steps=3, batch_size=16)


def test_the_pool_is_the_teachers_and_comes_back_from_its_cache(tmp_path):
    teacher = tiny_teacher()
    options = replace(OPTIONS, cache=tmp_path / "pool.pt")
    pool = load_or_roll_out(options, teacher, Ancestral(teacher.process), 3, Draws(0))
    assert pool.x_0.shape == (40, 6) and pool.x_0.max() < 5 and set(pool.cond.tolist()) == {0, 1, 2}
    again = load_or_roll_out(options, teacher, Ancestral(teacher.process), 3, Draws(0))
    assert torch.equal(pool.x_0, again.x_0) and torch.equal(pool.cond, again.cond)
    with pytest.raises(DataError, match="another teacher"):
        load_or_roll_out(options, tiny_teacher(seed=5), Ancestral(teacher.process), 3, Draws(0))


def test_batches_of_the_pool_do_not_depend_on_the_batch_size():
    teacher = tiny_teacher()
    one = load_or_roll_out(OPTIONS, teacher, Ancestral(teacher.process), 3, Draws(0))
    other = load_or_roll_out(replace(OPTIONS, batch_size=7), teacher, Ancestral(teacher.process), 3, Draws(0))
    assert torch.equal(one.x_0, other.x_0)


def test_examples_of_the_pool_are_chosen_where_it_lies():
    """A choice made on a GPU would have to be waited for at every step; nothing can be read back from a meta device."""
    pool = load_or_roll_out(OPTIONS, tiny_teacher(), Ancestral(tiny_teacher().process), 3, Draws(0))
    assert pool.batch(Draws(0, count=3, device="meta")).x_0.device.type == "meta"


def test_the_objective_trains_on_the_pool_and_not_on_the_data():
    objective = make(reference="teacher", rollouts=OPTIONS, num_classes=3)
    objective.prepare(Draws(0))
    first, second = batch(), batch()
    second.x_0.fill_(0)
    a, b = (objective(x, Draws(1, count=6), 0)["loss"] for x in (first, second))
    assert torch.equal(a, b)


def test_options_go_together():
    with pytest.raises(SpecError, match="rollouts"):
        make(reference="teacher")
