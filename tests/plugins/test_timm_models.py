"""timm's models, with tiny weights in files; nothing is downloaded."""

import pytest
import torch
from safetensors.torch import save_file

from di4c.errors import CheckpointError, SpecError
from di4c_plugins.timm_models import timm_model

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def whole():
    """A tiny model with a classifier of three classes."""
    from di4c.torchvision_compat import declare_missing_operators

    declare_missing_operators()
    import timm

    torch.manual_seed(3)
    return timm.create_model(NAME, num_classes=3, **TINY).eval()


def same(model, whole):
    x = torch.randn(2, 3, 32, 32)
    return torch.allclose(model(x), whole.forward_head(whole.forward_features(x), pre_logits=True), atol=1e-5)


@pytest.mark.parametrize("layout", ["safetensors", "state_dict", "ddp", "averaged", "folder"])
def test_weights_of_a_file_or_a_folder(layout, whole, tmp_path):
    state, path = whole.state_dict(), tmp_path / "weights.pth"
    if layout in ("safetensors", "folder"):
        path = tmp_path / "model.safetensors"
        save_file(state, path)
    elif layout == "averaged":
        torch.save({"state_dict_ema": state, "state_dict": {k: v + 1 for k, v in state.items()}, "epoch": 3}, path)
    else:
        torch.save({"state_dict": {("module." if layout == "ddp" else "") + k: v for k, v in state.items()}}, path)
    assert same(timm_model(NAME, str(tmp_path if layout == "folder" else path), "here", **TINY), whole)


def test_what_is_no_classifier_must_fit(whole, tmp_path):
    state = whole.state_dict()
    del state["norm.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth.*missing from the file.*norm\.weight"):
        timm_model(NAME, str(tmp_path / "w.pth"), "here", **TINY)
    with pytest.raises(CheckpointError, match="of another shape"):
        timm_model(NAME, str(tmp_path / "w.pth"), "here", **TINY | {"embed_dim": 32})


def test_an_absent_file_and_an_empty_folder_are_told(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(CheckpointError, match=tmp_path.name):
            timm_model(NAME, str(path), "here", **TINY)


def test_position_embeddings_are_resampled(whole, tmp_path):
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    larger = timm_model(NAME, str(tmp_path / "w.pth"), "here", **TINY | {"img_size": 64})
    assert larger.pos_embed.shape == (1, 17, 16)
    assert torch.equal(larger.blocks[0].mlp.fc1.weight, whole.blocks[0].mlp.fc1.weight)


def test_a_wrong_name_is_told_with_near_ones():
    with pytest.raises(SpecError, match=r"here: timm has no model 'resnett18'\. Did you mean resnet18"):
        timm_model("resnett18", None, "here")


def test_options_that_a_model_does_not_take_are_told():
    with pytest.raises(SpecError, match="here: timm cannot make 'resnet18'.*img_size"):
        timm_model("resnet18", None, "here", img_size=32)


def test_a_hub_out_of_reach_is_a_checkpoint_error(monkeypatch):
    import timm

    def offline(*args, **kwargs):
        raise OSError("no network here\nand more")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"OSError: no network here\)$"):
        timm_model(NAME, "hub", "here")
