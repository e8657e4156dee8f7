"""A user's own network as a teacher: logits path, output-head path, time conventions, checkpoint, as a whole student."""

import pytest
import torch
from safetensors.torch import load_file, save_model
from torch import nn

from di4c import testing
from di4c.errors import CheckpointError, SpecError
from di4c_plugins.heads.readout import Readout
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.module import ModuleTeacher

STATES, POSITIONS = 7, 5


class TheirModel(nn.Module):
    """Stands for a network of a user's own code base."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.embed = nn.Embedding(STATES, width)
        self.mix = nn.Linear(POSITIONS, POSITIONS)
        self.place = nn.Parameter(torch.randn(POSITIONS, width))
        self.lm_head = nn.Linear(width, STATES)
        self.seen_time = None

    def forward(self, x, time):
        self.seen_time = time
        h = self.embed(x) + self.place + time[:, None, None]
        return self.lm_head(torch.tanh(self.mix(h.transpose(1, 2)).transpose(1, 2)))


def teacher(**options) -> ModuleTeacher:
    process = Absorbing(STATES - 1)
    settings = {"module": f"{__name__}:TheirModel", "time": "t"} | options
    return ModuleTeacher(process, POSITIONS, parameterisation=Subs(process), **settings)


@pytest.mark.parametrize("readout", [None, "lm_head"])
def test_it_holds_the_contracts(readout):
    made = teacher(readout=readout)
    testing.check_teacher(made)
    testing.check_backbone(made.backbone, num_positions=POSITIONS, num_states=STATES)
    backbone = made.student_backbone()
    testing.check_head(Readout(1, backbone, rank=8), backbone, latent_dim=1, teacher=made)


def test_both_paths_give_the_same_numbers():
    torch.manual_seed(0)
    whole, split = teacher(), teacher(readout="lm_head")
    state = {k.removeprefix("module."): v for k, v in whole.backbone.state_dict().items()}
    head = {k: state.pop(f"lm_head.{k}") for k in ("weight", "bias")}
    split.backbone.module.load_state_dict(state)
    split.backbone.readout.layer.load_state_dict(head)
    x_t = torch.tensor([[6, 6, 1, 2, 6]])
    a, b = (m.freeze().predict(x_t, torch.tensor([0.5])).log_p0() for m in (whole, split))
    torch.testing.assert_close(a, b)
    assert split.backbone.width == 12 and whole.backbone.width == STATES


@pytest.mark.parametrize(("time", "expected"), [("t", 0.25), ("r", 0.75), ("sigma", 0.2873487)])
def test_time_conventions(time, expected):
    made = teacher(time=time)
    made.predict(torch.tensor([[6] * POSITIONS]), torch.tensor([0.25], dtype=torch.float64))
    assert abs(float(made.backbone.module.seen_time) - expected) < 1e-6


def test_a_checkpoint_is_loaded_strictly(tmp_path):
    torch.manual_seed(1)
    saved = TheirModel()
    torch.save({"model": {f"net.{k}": v for k, v in saved.state_dict().items()}}, tmp_path / "theirs.pt")
    made = teacher(checkpoint=str(tmp_path / "theirs.pt"), checkpoint_key="model", checkpoint_prefix="net.")
    assert torch.equal(made.backbone.module.embed.weight, saved.embed.weight)
    with pytest.raises(CheckpointError, match="prefix 'net.'"):
        teacher(checkpoint=str(tmp_path / "theirs.pt"), checkpoint_key="model")


def test_entries_beside_the_prefix_are_left_out(tmp_path):
    torch.manual_seed(1)
    saved = TheirModel()
    state = {f"net.{k}": v for k, v in saved.state_dict().items()} | {"noise.sigma_max": torch.zeros(1)}
    torch.save(state, tmp_path / "theirs.pt")
    made = teacher(checkpoint=str(tmp_path / "theirs.pt"), checkpoint_prefix="net.")
    assert torch.equal(made.backbone.module.embed.weight, saved.embed.weight)


class Nested(TheirModel):
    """Has names that a wrapper's prefix could be taken for."""

    def __init__(self):
        super().__init__()
        self.subnet, self.module = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        self.net = torch.nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("prefix", "option"),
    [
        ("", ""), ("net.", "net."), ("module.", ""), ("_orig_mod.", ""), ("module._orig_mod.", ""), ("_orig_mod.module.", ""),
        ("module.net.", "net."), ("net.module.", "net."), ("_orig_mod.net.", "net."), ("_fsdp_wrapped_module.", ""),
        ("subnet.", "subnet."), ("module.", "module."), ("module.module.", "module."),
    ],
)  # fmt: skip
def test_trouble_22_and_23_prefixes_and_wrappers_are_cut_from_the_start(tmp_path, prefix, option):
    saved = Nested()
    torch.save({prefix + k: v for k, v in saved.state_dict().items()}, tmp_path / "theirs.pt")
    made = teacher(module=f"{__name__}:Nested", checkpoint=str(tmp_path / "theirs.pt"), checkpoint_prefix=option)
    assert all(torch.equal(v, made.backbone.module.state_dict()[k]) for k, v in saved.state_dict().items())


@pytest.mark.parametrize("extra", ["module.loss.weight", "other"])
def test_trouble_23_the_rest_stays_strict(tmp_path, extra):
    state = {f"module.{k}": v for k, v in TheirModel().state_dict().items()} | {extra: torch.zeros(1)}
    torch.save(state, tmp_path / "theirs.pt")
    with pytest.raises(CheckpointError, match=f"not known to the model: .*{extra.removeprefix('module.')}"):
        teacher(checkpoint=str(tmp_path / "theirs.pt"))


class Tied(TheirModel):
    def __init__(self):
        super().__init__()
        self.lm_head.weight = self.embed.weight


@pytest.mark.parametrize("readout", [None, "lm_head"])
def test_trouble_23_a_tied_head_that_safetensors_leaves_out_is_read(tmp_path, readout):
    saved = Tied()
    save_model(saved, str(tmp_path / "theirs.safetensors"))
    assert len(load_file(tmp_path / "theirs.safetensors")) == len(saved.state_dict()) - 1
    made = teacher(module=f"{__name__}:Tied", checkpoint=str(tmp_path / "theirs.safetensors"), readout=readout)
    x, t = torch.tensor([[6, 6, 1, 2, 6]]), torch.tensor([0.5])
    assert torch.equal(made.backbone.module.embed.weight, saved.embed.weight)
    with torch.no_grad():
        found = made.predict(x, t).log_p0().exp()
        torch.testing.assert_close(found[0, 0, :6], saved(x, t)[0, 0, :6].softmax(-1))


def test_mistakes_are_named():
    with pytest.raises(SpecError, match="pkg.module:Class"):
        teacher(module="no_such_module:Thing")
    with pytest.raises(SpecError, match="sigma"):
        teacher(time="s")
    with pytest.raises(SpecError, match="lm_head"):
        teacher(readout="head")
