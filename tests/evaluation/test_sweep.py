import pytest
import torch

from di4c.errors import SpecError
from di4c.evaluation.cells import CellStore
from di4c.evaluation.sweep import Sweep, grid_examples
from tests.evaluation.systems import Data, Mean, Steps, entrant


def sweep(folder, mean=None, **changes):
    settings = {
        "data": Data(), "metrics": [({"name": "mean"}, mean or Mean()), ({"name": "steps"}, Steps())],
        "store": CellStore(folder), "steps": [1, 3], "seeds": [0, 1], "samples": 20, "batch_size": 8,
    }  # fmt: skip
    return Sweep(**settings | changes)


def results(measurements):
    return [(m.model, m.mixture_size, m.steps, m.seed, m.nfe, m.metrics) for m in measurements]


def test_every_cell_is_measured(tmp_path):
    found = sweep(tmp_path).run([entrant(), entrant("student", "inf"), entrant("student", 4)])
    assert len(found) == 3 * 2 * 2
    assert {m.nfe for m in found if m.steps == 3} == {3}
    assert all(set(m.metrics) == {"mean", "labels", "steps"} and len(m.seconds) == 3 for m in found)
    assert found[0].higher_is_better == {"mean": False, "labels": None, "steps": True}


def test_models_are_compared_on_the_same_draws(tmp_path):
    """Two names of one model give the same numbers; another seed gives others."""
    found = sweep(tmp_path).run([entrant(), entrant("again")])
    first, second = (results(m for m in found if m.model == name) for name in ("teacher", "again"))
    assert [r[2:] for r in first] == [r[2:] for r in second]
    assert first[0][5] != first[1][5]


def test_an_interrupted_sweep_goes_on(tmp_path):
    whole = results(sweep(tmp_path / "whole").run([entrant()]))
    broken = Mean(fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "cells", broken).run([entrant()])
    rest = Mean()
    assert results(sweep(tmp_path / "cells", rest).run([entrant()])) == whole
    assert rest.calls == 2  # of the four cells, two were done
    nothing = Mean()
    assert results(sweep(tmp_path / "cells", nothing).run([entrant()])) == whole
    assert nothing.calls == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 21},
        {"batch_size": 9},
        {"code": {"plugins": "b"}},
        {"metrics": [({"name": "mean", "option": 1}, Mean())]},
    ],
)
def test_other_settings_are_other_cells(tmp_path, changes):
    sweep(tmp_path).run([entrant()])
    again = changes["metrics"][0][1] if "metrics" in changes else Mean()
    changes = {"metrics": [({"name": "mean"}, again)]} | changes
    sweep(tmp_path, **changes).run([entrant()])
    assert again.calls == 4


def test_other_weights_are_other_cells(tmp_path):
    sweep(tmp_path).run([entrant()])
    again = Mean()
    sweep(tmp_path, again).run([entrant(weights="new")])
    assert again.calls == 4


def test_more_seeds_add_to_what_is_there(tmp_path):
    sweep(tmp_path).run([entrant()])
    more = Mean()
    assert len(sweep(tmp_path, more, seeds=[0, 1, 2]).run([entrant()])) == 6
    assert more.calls == 2


def test_the_first_seed_is_pictured_and_a_lost_picture_is_made_again(tmp_path):
    found = sweep(tmp_path).run([entrant()])
    pictures = [m.grid for m in found if m.grid is not None]
    assert [m.seed for m in found if m.grid is not None] == [0, 0]
    pictures[0].unlink()
    again = Mean()
    sweep(tmp_path, again).run([entrant()])
    assert again.calls == 1 and pictures[0].exists()


def test_two_metrics_of_one_name_are_refused(tmp_path):
    with pytest.raises(SpecError, match="two metrics report"):
        sweep(tmp_path, metrics=[({"name": "a"}, Mean()), ({"name": "b"}, Mean())]).run([entrant()])


def test_progress_counts_to_the_end(tmp_path):
    told = []
    sweep(tmp_path, say=lambda *what: told.append(what)).run([entrant()])
    assert [done for done, _, _ in told] == list(range(9))
    assert {total for _, total, _ in told} == {8}


def test_reference_values_of_every_seed(tmp_path):
    assert sweep(tmp_path).reference_values() == [{"mean": 1.0, "labels": 0.5}] * 2


def test_grid_shows_equally_many_of_each_class():
    cond = torch.tensor([0, 1, 0, 2, 1, 0, 2, 0])
    assert cond[grid_examples(cond, 8, at_most=6)].tolist() == [0, 0, 1, 1, 2, 2]
    assert grid_examples(None, 3, at_most=6).tolist() == [0, 1, 2]
    many = torch.arange(1000)
    assert len(grid_examples(many, 1000)) == 10
