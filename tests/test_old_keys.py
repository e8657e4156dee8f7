"""Specs written in the keys of earlier versions."""

import warnings

import pytest

from di4c.errors import SpecError
from di4c.old_keys import RENAMED, reference_values, renamed, renamed_path


def written(above: str, key: str, value: object) -> dict:
    """A spec in which `key` stands below `above`."""
    return {key: value} if not above else {"objective": {above: {key: value}}}


@pytest.mark.parametrize(("above", "old"), RENAMED)
def test_an_old_key_is_read_with_one_warning_that_names_the_new_one(above, old):
    new = RENAMED[above, old]
    with pytest.warns(FutureWarning, match=f"a.yaml: old keys, still read: .*{old} is now .*{new}") as told:
        assert renamed(written(above, old, 1), "a.yaml") == written(above, new, 1)
    assert len(told) == 1
    with pytest.raises(SpecError, match=f"{old}: an old name of .*{new}, which is given too"):
        renamed(written(above, old, 1) | {new: 1} if not above else {above: {old: 1, new: 2}})


def test_what_is_new_stays_and_says_nothing():
    values = {"task": "distill", "law": 1, "eval": {"metrics": [{"name": "x", "procedure": 3}]}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert renamed(values, "a.yaml") == values
        renamed({"procedure": "rounds"})  # what a program has recorded


def test_the_path_of_a_change_is_renamed_too():
    with pytest.warns(FutureWarning, match="--set x: old keys, still read: procedure.max is now pipeline.max"):
        assert renamed_path(["procedure", "max"], "--set x") == ["pipeline", "max"]
    assert renamed_path(["eval", "metrics", 0, "procedure"], "--set x") == ["eval", "metrics", 0, "procedure"]


def test_a_key_without_use_is_left_out():
    with pytest.warns(FutureWarning, match="objective.fused has no use any more"):
        assert renamed({"objective": {"fused": True, "targets": 1}}, "a.yaml") == {"objective": {"targets": 1}}


@pytest.mark.parametrize("stored", [{"floors": {"x": 1}}, {"reference_values": {"x": 1}}])
def test_stored_evaluations_of_earlier_versions_are_read(stored):
    assert reference_values(stored) == {"x": 1} and reference_values({}) == {}
