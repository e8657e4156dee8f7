"""Files of each published layout, small and random, read back."""

from collections import OrderedDict

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from di4c.contracts import strict_load
from di4c.errors import CheckpointError
from di4c_plugins.teachers import containers


class Foreign:
    """What a published file may carry: a class this project does not know."""

    def __init__(self) -> None:
        self.loaded = True

    def __setstate__(self, state: dict) -> None:
        raise AssertionError("a class in a checkpoint was executed")


def network(width: int = 4, states: int = 6) -> nn.Sequential:
    return nn.Sequential(OrderedDict(embed=nn.Embedding(states, width), out=nn.Linear(width, states)))


def test_a_torch_file_with_foreign_objects_gives_its_tensors(tmp_path):
    config = OmegaConf.create({"model": {"length": 16, "parts": [1, 2]}, "mask": None})
    state = {f"backbone.{k}": v for k, v in network().state_dict().items()}
    torch.save(
        {"state_dict": state, "hyper_parameters": {"config": config, "tokenizer": Foreign()}}, tmp_path / "a.ckpt"
    )
    content = containers.read_file(tmp_path / "a.ckpt")
    read = containers.below(containers.tensors_at(content, "state_dict", "a.ckpt"), "backbone.")
    for key, value in network().state_dict().items():
        assert read[key].shape == value.shape
    assert torch.equal(read["out.weight"], state["backbone.out.weight"])
    assert isinstance(content["hyper_parameters"]["tokenizer"], containers.Inert)


def test_a_safetensors_file(tmp_path):
    save_file({"x": torch.arange(3)}, tmp_path / "model.safetensors")
    assert containers.read_file(tmp_path / "model.safetensors")["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["cut.ckpt", "cut.safetensors", "text.pt"])
def test_a_damaged_file_is_named(tmp_path, name):
    torch.save({"a": torch.ones(100)}, tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / name).write_bytes(b"no checkpoint" if name == "text.pt" else whole[:200])
    with pytest.raises(CheckpointError, match=name):
        containers.read_file(tmp_path / name)


def test_an_absent_file_and_an_absent_entry(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        containers.read_file(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="'state_dict'.*there are: model, step"):
        containers.tensors_at({"model": {}, "step": 3}, "state_dict", "f.pt")


def named(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.full((1,), float(i)) for i, name in enumerate(names)}


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("backbone._orig_mod.backbone.a.weight", "a.weight"),
        ("_orig_mod.module.backbone.a", "a"),
        ("module.backbone._orig_mod.a", "a"),
        ("blocks.0._orig_mod.a", "blocks.0.a"),
        ("_fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.a", "blocks.0.a"),
        ("submodule.a", "submodule.a"),
        ("a.module.b", "a.module.b"),
        ("my_backbone.a", "my_backbone.a"),
        ("a.not_orig_mod.b", "a.not_orig_mod.b"),
    ],
)
def test_trouble_b05_prefixes_are_cut_at_the_start_alone_and_wrappers_as_whole_parts(name, left):
    assert list(containers.without(named(name), "f", "backbone.", containers.PARALLEL)) == [left]


def test_trouble_b05_names_that_become_one_are_refused():
    with pytest.raises(CheckpointError, match="f.pt: two tensors are called 'a'"):
        containers.without(named("module.a", "a"), "f.pt", containers.PARALLEL)


def test_shadows_replace_parameters_in_order_and_leave_buffers():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = module.state_dict()
    shadows = [torch.full_like(p, i) for i, p in enumerate(module.parameters())]
    buffers = [name for name, _ in module.named_buffers()]
    averaged = containers.with_shadows(state, shadows, "f", buffers)
    for i, (name, _) in enumerate(module.named_parameters()):
        assert (averaged[name] == i).all()
    assert averaged["1.running_var"] is state["1.running_var"]
    with pytest.raises(CheckpointError, match="3 EMA shadows for 4 parameters"):
        containers.with_shadows(state, shadows[:3], "f", buffers)


@pytest.mark.parametrize("shadows", [torch.ones(3), {"a": torch.ones(1)}, [1.0, 2.0], "none"])
def test_shadows_of_another_kind_are_refused(shadows):
    with pytest.raises(CheckpointError, match="f: its EMA shadows are not a list"):
        containers.with_shadows(network().state_dict(), shadows, "f")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.pt"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(POINTER, "git-lfs pointer.*fetch the file"), (b"", "is empty"), (b"\n<!DOCTYPE html><html>", "a web page")],
)
def test_trouble_31_what_lies_in_a_files_place_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: .*{said}"):
        containers.read_file(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
def test_trouble_31_torchs_advice_to_run_code_is_not_passed_on(tmp_path, zipped):
    torch.save({"model": network(), "w": torch.ones(1)}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    try:
        containers.read_file(tmp_path / "whole.pt")
    except CheckpointError as error:
        assert (
            "weights_only" not in str(error)
            and "\n" not in str(error)
            and "torch.save(network.state_dict()" in str(error)
        )
    else:
        assert zipped  # a module in a zipped file becomes Inert


@pytest.mark.parametrize(
    "content",
    [b"no checkpoint", b"\x80\x02}q\x00.", b"\x80\x04N.", b"PK\x03\x04", b"\x00" * 64, b"(lp0\ncos\nsystem\n."],
)
def test_trouble_31_damage_is_told_in_one_line(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError) as told:
        containers.tensors_at(containers.read_file(tmp_path / "a.pt"), None, "a.pt")
    assert "a.pt" in str(told.value) and "weights_only" not in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_trouble_31_weights_that_are_no_numbers_are_refused_by_name(value, dtype):
    module, state = network(), {k: v.to(dtype) for k, v in network().state_dict().items()}
    state["out.weight"][2, 1] = value
    with pytest.raises(CheckpointError, match="f.pt: 'out.weight' holds NaN or infinite"):
        strict_load(module, state, "f.pt")
    assert all(p.isfinite().all() for p in module.parameters())


def test_trouble_31_a_mask_among_the_buffers_may_be_infinite_and_not_nan():
    module = network()
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    strict_load(module, module.state_dict(), "f")
    with pytest.raises(CheckpointError, match="'mask' holds NaN"):
        strict_load(module, module.state_dict() | {"mask": torch.tensor([0.0, torch.nan])}, "f")


def test_strict_load_loads():
    source, target = network(), network()
    strict_load(target, source.state_dict(), "f")
    assert torch.equal(source.embed.weight, target.embed.weight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "prefix 'module.'"),
        (lambda s: network(states=7).state_dict(), "vocabulary of 7 states in the file, 6 here"),
        (lambda s: network(width=5).state_dict(), "another width"),
        (lambda s: {"conv": torch.zeros(1)}, "another kind of model"),
        (lambda s: {**s, "latent_projection.0.weight": torch.zeros(1)}, "a Di4C student"),
        (lambda s: {k.replace("embed", "tokens"): v for k, v in s.items()}, "only be named differently"),
        (lambda s: {"out.weight": s["out.weight"]}, "a part of the model only: 1 of 3 tensors"),
    ],
)
def test_a_state_that_does_not_fit_is_explained_and_not_loaded(change, said):
    module = network()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=said):
        strict_load(module, change(network().state_dict()), "f", {"latent_projection": "it is a Di4C student"})
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize(("layers", "said"), [(1, "fewer layers"), (3, "more layers")])
def test_another_depth_is_explained(layers, said):
    stack = [nn.Sequential(*(nn.Linear(2, 2) for _ in range(number))) for number in (2, layers)]
    with pytest.raises(CheckpointError, match=f"likely: the file's network has {said}"):
        strict_load(stack[0], stack[1].state_dict(), "f")


def test_a_reason_for_one_tensor_is_not_given_for_another_width():
    """A plugin's reason for its embedding is about rows; where all tensors differ, the width does."""
    reasons = {"embed": "another vocabulary"}
    with pytest.raises(CheckpointError, match="another vocabulary"):
        strict_load(network(), network().state_dict() | {"embed.weight": torch.zeros(7, 4)}, "f", reasons)
    with pytest.raises(CheckpointError) as told:
        strict_load(network(), network(width=5).state_dict(), "f", reasons)
    assert "another width" in str(told.value) and "vocabulary" not in str(told.value)


def tied() -> nn.Module:
    module = nn.Sequential(OrderedDict(embed=nn.Embedding(6, 4), out=nn.Linear(4, 6, bias=False)))
    module.out.weight = module.embed.weight
    return module


@pytest.mark.parametrize("left_out", ["embed.weight", "out.weight"])
def test_trouble_23_a_tied_tensor_may_be_left_out_under_either_name(left_out):
    module, state = tied(), tied().state_dict()
    del state[left_out]
    strict_load(module, state, "f")
    assert torch.equal(module.embed.weight, next(iter(state.values()))) and module.out.weight is module.embed.weight


def test_trouble_23_tied_tensors_that_differ_or_lack_altogether_are_refused():
    state = tied().state_dict()
    with pytest.raises(CheckpointError, match="'embed.weight' and 'out.weight' are one tensor.*differ in the file"):
        strict_load(tied(), {name: value + i for i, (name, value) in enumerate(state.items())}, "f")
    with pytest.raises(CheckpointError, match="2 missing from the file"):
        strict_load(tied(), {}, "f")
    untied = network().state_dict()
    del untied["out.weight"]
    with pytest.raises(CheckpointError, match="1 missing from the file: out.weight"):
        strict_load(network(), untied, "f")


def test_a_missing_name_is_told_with_its_prefix():
    state = {"model.embed.weight": torch.zeros(1)}
    assert "prefix 'model.', which has to be cut off" in containers.not_found("embed.weight", state)
    assert "prefix" not in containers.not_found("other", state)
