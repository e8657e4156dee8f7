import pytest
import torch
from einops import rearrange
from torch import nn

from di4c.errors import SpecError
from di4c.testing import check_backbone, check_teacher
from di4c_plugins.backbones.timm_vit import PATCHES, TimmViT
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.teachers.denoiser import DenoiserTeacher
from di4c_plugins.timm_models import timm_model

TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2}
MODELS = [
    "vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_base_patch16_clip_224", "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_rope_reg1_gap_256", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3",
]  # fmt: skip


def made(model=MODELS[0], **told):
    torch.manual_seed(0)
    backbone = TimmViT(64, 18, model=model, **{"grid": [8, 8], "num_classes": 10, "options": TINY, **told})
    nn.init.normal_(backbone.readout.linear.weight, std=0.2)
    return backbone


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("patch", [None, 4])
def test_families_hold_the_contract(model, patch):
    check_backbone(made(model, patch=patch, pixel_width=8), num_positions=64, num_states=18, num_classes=10)


@pytest.mark.parametrize("told", [{}, {"patch": 2}, {"model": MODELS[4], "patch": 2, "time_conditioning": False}])
def test_a_teacher_of_it_holds_the_contract(told):
    process = Absorbing(17)
    check_teacher(DenoiserTeacher(process, 64, backbone=made(**told), parameterisation=Subs(process)), num_classes=10)


def test_positions_time_and_class_are_seen():
    for model in (MODELS[0], MODELS[4]):
        backbone = made(model).eval()
        x_t, t, cond = torch.full((2, 64), 17), torch.tensor([0.5, 0.5]), torch.tensor([3, 3])
        h = backbone(x_t, t, cond)
        assert not torch.allclose(h[0, 5], h[0, 40], atol=1e-3)  # although all are masked
        assert not torch.allclose(h, backbone(x_t, t / 2, cond)) and not torch.allclose(h, backbone(x_t, t, cond + 1))


@pytest.fixture
def weights(tmp_path):
    """A file of a tiny model of 32 × 32 colour images in patches of 8."""
    torch.manual_seed(5)
    vit = timm_model(MODELS[0], None, "here", img_size=32, patch_size=8, **TINY)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def test_pretrained_blocks_norms_and_positions_are_taken(weights):
    state = torch.load(weights, weights_only=True)
    for told in ({"grid": [8, 8]}, {"grid": [32, 32], "patch": 8}):
        size = told["grid"][0]
        torch.manual_seed(0)
        backbone = TimmViT(size**2, 18, model=MODELS[0], pretrained=str(weights), options=TINY, **told)
        for name, value in backbone.blocks.state_dict().items():
            assert torch.equal(value, state[f"blocks.{name}"]), name
        assert torch.equal(backbone.norm.weight, state["norm.weight"])
    assert torch.allclose(backbone.positions, state["pos_embed"][0, 1:], atol=1e-5)
    unread = TimmViT(64, 18, model=MODELS[0], grid=[8, 8], pretrained="nowhere.pth", options=TINY, weights=False)
    assert not torch.equal(unread.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"])


def test_patches_of_colours_are_embedded_as_the_weights_know_them(weights):
    """The share of the grey value in the first channel is the model's own patch embedding."""
    vit = timm_model(MODELS[0], str(weights), "here", img_size=32, patch_size=8, **TINY)
    backbone = TimmViT(
        3 * 32 * 32, 256, model=MODELS[0], grid=[32, 32], patch=8, channels=3, pretrained=str(weights), options=TINY
    )
    embedding = backbone.embedding
    with torch.no_grad():
        embedding.levels.weight[:, 1:] = 0
    x = torch.randint(256, (2, 3 * 32 * 32))
    images = x.view(2, 3, 32, 32) / 127.5 - 1
    expected = vit.patch_embed(images)
    found = embedding(rearrange(x, PATCHES, **backbone.axes))
    assert torch.allclose(found, expected, atol=1e-4)


def test_pixels_come_back_where_they_were():
    """A change of one pixel changes, without attention, the features of its own patch alone."""
    backbone = made(patch=2, pixel_width=8).eval()
    backbone.blocks = nn.ModuleList(nn.Identity() for _ in backbone.blocks)
    x, t = torch.zeros(1, 64, dtype=torch.long), torch.tensor([0.5])
    changed = x.clone()
    changed[0, 8 * 3 + 5] = 9  # row 3, column 5: the patch of rows 2–3 and columns 4–5
    differs = (backbone(x, t) - backbone(changed, t)).abs().sum(-1).view(8, 8) > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert torch.equal(differs, expected)


def test_rotary_tables_keep_their_precision():
    backbone = made(MODELS[4]).to(torch.bfloat16)
    assert backbone.rope.table.dtype == torch.float32 and backbone.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"grid": [4, 8]}, "1 × 4 × 8 has not the 64 positions"),
        ({"grid": [64]}, "rows and columns"),
        ({"patch": 3}, "patches of 3 divide"),
        ({"patch": 2, "channels": 3}, "3 × 8 × 8"),
        ({"model": "beit_base_patch16_224"}, "no plain vision transformer"),
        ({"model": "vit_small_patch16_rope_mixed_224"}, "differ from block to block"),
        ({"model": "vit_tinyy_patch16_224"}, "Did you mean"),
        ({"options": {**TINY, "drop_path_rate": 0.1}}, "proj_drop_rate"),
        ({"options": {"hidden": 3}}, "timm cannot make"),
    ],
)
def test_what_does_not_fit_is_told(told, message):
    with pytest.raises(SpecError, match=message):
        made(**told)


def test_an_export_needs_no_pretrained_file():
    process = Absorbing(17)
    teacher = DenoiserTeacher(process, 64, backbone=made(), parameterisation=Subs(process))
    entry = {"name": "denoiser", "backbone": {"name": "timm-vit", "model": "x", "pretrained": "w.pth"}}
    assert teacher.portable_entry(entry)["backbone"] == {"name": "timm-vit", "model": "x"}
    assert teacher.portable_entry({"name": "denoiser", "backbone": {"name": "dit"}})["backbone"] == {"name": "dit"}
