"""What a caller may ask of a trained model, and what is said of everything else."""

import argparse

import numpy as np
import pytest
import torch

import di4c
from di4c.command_line import number
from di4c.config.eval_spec import EvalSpec, mixture_size
from di4c.draws import Draws
from di4c.errors import Di4CError, SpecError
from tests.evaluation.conftest import PRETRAIN, distill, write_run

THREE = [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.int32)]
NOT_WHOLE = [
    2.7,
    2.0,
    np.float32(2),
    torch.tensor(2.0),
    True,
    np.bool_(True),
    torch.tensor(True),
    "2",
    np.array([1, 2]),
    2j,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    teacher = write_run(folder / "teacher", PRETRAIN)
    return di4c.load(write_run(folder / "student", distill(teacher)), device="cpu")


def refused(model, name, *arguments, **keywords):
    with pytest.raises(SpecError) as caught:
        model.sample(*arguments, **keywords)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("three", THREE, ids=repr)
def test_trouble_06_integers_of_every_library_are_the_number_that_they_equal(model, three):
    plain = model.sample(3, 1, 3, seed=3, mixture_size=3)
    assert torch.equal(plain, model.sample(three, 1, three, seed=three, mixture_size=three, batch_size=three))
    assert torch.equal(Draws(3).child("a", 3).uniform(2), Draws(three).child("a", three).uniform(2))


def test_trouble_06_settings_of_an_evaluation_are_plain_numbers():
    settings = EvalSpec("ancestral", [], steps=[np.int64(2)], samples=torch.tensor(5), seeds=np.int8(1), batch_size=3)
    assert [type(value) for value in (*settings.steps, settings.samples, settings.seeds)] == [int] * 3
    assert mixture_size(np.int64(4), "size") == 4


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
@pytest.mark.parametrize("name", ["num", "steps", "seed", "batch_size", "mixture_size"])
def test_trouble_32_what_is_no_whole_number_is_refused(model, name, value):
    if name == "mixture_size" and isinstance(value, str):
        pytest.skip("as on the command line")
    keywords = {"num": 2, "steps": 1, "seed": 0, name: value}
    refused(model, name, keywords.pop("num"), keywords.pop("steps"), **keywords)


@pytest.mark.parametrize("cond", [2.7, [2.0, 1.0], torch.tensor([0.5, 1]), np.array([1.0, 2.0]), [True, False], "3", ["1", "2"],
                                  [[1], [2]], [[1], [2, 3]], 10, -2, 2**70, [1, 2, 3], [], {}], ids=repr)  # fmt: skip
def test_trouble_32_labels_that_are_none_are_refused(model, cond):
    refused(model, "cond: expected a label 0 to 9", 2, 1, cond)


@pytest.mark.parametrize("name", ["num", "steps", "batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_trouble_09_numbers_start_at_one(model, name, value):
    keywords = {"num": 2, "steps": 1, name: value}
    refused(
        model,
        f"{name}: expected a whole number ≥ 1, found {value}",
        keywords.pop("num"),
        keywords.pop("steps"),
        **keywords,
    )


@pytest.mark.parametrize("known", [[1] * 63, [0.5] * 64, [17] * 64, [18] * 64, [-2] * 64, [[1] * 64], "text", torch.ones(64)],
                         ids=lambda known: repr(known)[:12])  # fmt: skip
def test_trouble_09_prompts_that_do_not_fit_are_refused(model, known):
    refused(model, "known: expected 64 tokens below 18", 2, 1, known=known)


def test_trouble_09_a_prompt_may_be_a_list_or_an_array(model):
    known = [3] * 10 + [-1] * 54
    found = [model.sample(2, 2, seed=0, known=kind(known)) for kind in (list, np.array, torch.tensor)]
    assert (found[0][:, :10] == 3).all() and torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_trouble_09_the_other_arguments(model, tmp_path):
    refused(model, "mixture_size", 2, 1, mixture_size=0)
    refused(model, "generator", 2, 1, generator=5)
    for keywords, name in [({"device": "gpu"}, "device"), ({"device": "cuda:99"}, "device"), ({"device": "meta"}, "device"),
                           ({"overrides": "data.path=x"}, "overrides"), ({"overrides": [3]}, "overrides")]:  # fmt: skip
        with pytest.raises(SpecError, match=name):
            di4c.load(model.path, **keywords)
    for path in (None, 3, ""):
        with pytest.raises(SpecError, match="path"):
            di4c.load(path)


@pytest.mark.parametrize("text", ["0", "-3", "2.7", "", "two", "1e3", "²"])
def test_trouble_09_the_commands_refuse_the_same(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number ≥ 1"):
        number(1)(text)
    assert number()("-3") == -3


def test_trouble_b10_grids_take_what_decoding_takes(model, tmp_path, monkeypatch):
    tokens = model.sample(3, 1, seed=0)
    wanted = model.save_grid(tokens, tmp_path / "new" / "folder" / "a.png").read_bytes()
    for same in (tokens.numpy(), tokens.tolist(), tokens.int()):
        assert model.save_grid(same, str(tmp_path / "b")).read_bytes() == wanted
    assert model.save_grid(tokens[0], tmp_path / "one").is_file()
    labelled = model.save_grid(tokens, tmp_path / "c", torch.tensor([4, 4, 4])).read_bytes()
    for cond in (4, [4, 4, 4], np.array([4, 4, 4])):
        assert model.save_grid(tokens, tmp_path / "d", cond).read_bytes() == labelled
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert model.save_grid(tokens, "~/x") == tmp_path / "home" / "x.png"


def test_trouble_b10_what_no_grid_can_be_made_of_is_refused(model, tmp_path):
    tokens = torch.zeros(2, 64, dtype=torch.int64)
    for wrong in (tokens + 17, tokens.float(), tokens[:, 1:], "text", None):
        with pytest.raises(SpecError, match=r"tokens: expected tokens \[n, 64\], 0 to 16"):
            model.save_grid(wrong, tmp_path / "x")
    for cond in ([1], 10, "3", [1, 2, 3]):
        with pytest.raises(SpecError, match="cond: expected a label 0 to 9"):
            model.save_grid(tokens, tmp_path / "x", cond)
    for path in (None, "", b"x"):
        with pytest.raises(SpecError, match="path"):
            model.save_grid(tokens, path)
    (tmp_path / "file").touch()
    with pytest.raises(Di4CError, match=r"cannot write .*file/x"):
        model.save_grid(tokens, tmp_path / "file" / "x")
    assert not list(tmp_path.glob("x*"))
