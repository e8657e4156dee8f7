"""What every backbone with a shared trunk promises: the trunk runs once, in whatever groups the components go on; masks belong to examples."""

import pytest
import torch
from torch import nn

from di4c.contracts import Raw
from di4c.engine.dropout import insert_example_dropout
from di4c.mixture.student import MixtureStudent
from di4c.testing import check_backbone
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.backbones.maskgit import MaskGITBackbone
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet
from di4c_plugins.backbones.timm_vit import TimmViT
from di4c_plugins.backbones.unet_blocks import ResidualBlock
from di4c_plugins.heads.adaln import AdaLN, Late
from di4c_plugins.heads.sinusoidal_embedding import SinusoidalEmbedding
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.heads.token import Token

D, S, M = 16, 8, 5
BACKBONES = {
    "dit": lambda p: DiT(D, S, width=16, depth=3, heads=2, dropout=p),
    "dit, recomputed": lambda p: DiT(D, S, width=16, depth=3, heads=2, dropout=p, recompute=True),
    "mdlm-dit": lambda p: MdlmDiT(D, S, width=16, depth=3, heads=2, conditioning_width=8, dropout=p),
    "maskgit": lambda p: MaskGITBackbone(D, S, width=16, depth=3, heads=2, mlp_width=16, dropout=p),
    "tauldr-unet": lambda p: TauLDRUNet(
        D, S, shape=[1, 4, 4], channels=8, multipliers=[1, 2], res_blocks=1, attention_at=1, dropout=p, lam_embed_dim=8
    ),
}
TIMM = {
    "timm-vit": ("vit_tiny_patch16_224", None),
    "timm-vit, rotary": ("vit_base_patch16_rope_reg1_gap_256", None),
    "timm-vit, patches": ("vit_tiny_patch16_224", 2),
}
BACKBONES |= {
    name: lambda p, model=model, patch=patch: TimmViT(
        D, S, model=model, grid=[4, 4], patch=patch, pixel_width=8,
        options={"embed_dim": 16, "depth": 3, "num_heads": 2, "proj_drop_rate": p},
    )
    for name, (model, patch) in TIMM.items()
}  # fmt: skip
HEADS = {
    "token": lambda backbone, start: Token(1, backbone),
    "late token": lambda backbone, start: SinusoidalToken(
        1, backbone, features=8, hidden=8, output_scale=1.0, start=start
    ),
    "adaln": lambda backbone, start: AdaLN(1, backbone),
    "late": lambda backbone, start: Late(1, backbone, blocks=backbone.depth - start),
    "late embedding": lambda backbone, start: SinusoidalEmbedding(1, backbone, start=start),
}
CASES = [
    ("dit", "token", 0), ("dit", "late", 2), ("dit", "late token", 1), ("dit, recomputed", "late", 1), ("mdlm-dit", "late token", 2),
    ("mdlm-dit", "adaln", 0), ("maskgit", "late token", 1), ("maskgit", "token", 0),
    ("timm-vit", "adaln", 0), ("timm-vit, rotary", "late token", 1), ("timm-vit, patches", "late", 2),
    *(("tauldr-unet", "late embedding", start) for start in (0, 1, 2, 3, 7)),
]  # fmt: skip


def student(backbone: str, head: str, start: int, dropout: float = 0.0) -> MixtureStudent:
    torch.manual_seed(0)
    made = BACKBONES[backbone](dropout)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return MixtureStudent(made, HEADS[head](made, start), parameterisation=Raw(), num_states=S).double()


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """The blocks in the order that `Context.start` counts."""
    if isinstance(backbone, TauLDRUNet):
        return [module for module in backbone.modules() if isinstance(module, ResidualBlock)]
    return list(backbone.transformer["layers"] if isinstance(backbone, MaskGITBackbone) else backbone.blocks)


def inputs(batch: int = 3) -> tuple:
    made = torch.Generator().manual_seed(2)
    return (
        torch.randint(S, (batch, D), generator=made), torch.rand(batch, generator=made), None,
        torch.rand(batch, M, 1, generator=made),
    )  # fmt: skip


def features_and_gradients(model: MixtureStudent, at_a_time: int | None) -> list[torch.Tensor]:
    model.zero_grad()
    features = model.predict(*inputs(), at_a_time=at_a_time).features
    (features * torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view_as(features)).sum().backward()
    return [features.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(("backbone", "head", "start"), CASES)
def test_trouble_b15_the_shared_trunk_runs_once_however_the_components_are_grouped(backbone, head, start):
    model = student(backbone, head, start)
    whole = features_and_gradients(model, None)
    rows = {number: [] for number in range(len(blocks_of(model.backbone)))}
    for number, block in enumerate(blocks_of(model.backbone)):
        block.register_forward_pre_hook(lambda module, given, number=number: rows[number].append(len(given[0])))
    grouped = features_and_gradients(model, 2)
    for ours, theirs in zip(grouped, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    again = 2 if backbone == "dit, recomputed" else 1
    assert all(rows[number] == [3] * again for number in range(start)), rows
    # once more in the backward pass
    assert all(sum(rows[number]) >= 3 * 2 * M for number in range(start, len(rows))), rows


@pytest.mark.parametrize("at_a_time", [None, 2])
@pytest.mark.parametrize(("backbone", "head", "start"), [case for case in CASES if case[2] < 3])
def test_trouble_b03_masks_of_dropout_do_not_depend_on_how_the_batch_is_split(backbone, head, start, at_a_time):
    model = student(backbone, head, start, dropout=0.4)
    examples = insert_example_dropout(model)

    def features(first: int, count: int) -> torch.Tensor:
        examples.first, examples.count = first, count
        torch.manual_seed(5)
        given = [x if x is None else x[first : first + count] for x in inputs(4)]
        return model.predict(*given, at_a_time=at_a_time).features.unflatten(0, (count, M))

    whole = features(0, 4)
    torch.testing.assert_close(torch.cat([features(0, 1), features(1, 3)]), whole)
    model.eval()
    assert (features(0, 4) - whole).abs().max() > 1e-3


def test_trouble_b15_groups_share_the_trunks_masks_and_repeat_their_own():
    """With dropout in the trunk alone, groups and all components together drop the same."""
    model = student("dit", "late", 2)
    for block in model.backbone.blocks[:2]:
        block.dropout = nn.Dropout(0.4)
    examples = insert_example_dropout(model)
    examples.count = 3
    found = []
    for at_a_time in (None, 2):
        torch.manual_seed(5)
        found.append(features_and_gradients(model, at_a_time))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


class Functional(DiT):
    """A backbone with dropout that training cannot replace."""

    def after(self, trunk, context):
        return nn.functional.dropout(super().after(trunk, context), 0.5, self.training)


def test_trouble_b03_dropout_that_is_no_module_is_told_to_a_plugins_author():
    check_backbone(DiT(D, S, width=16, depth=1, heads=2, dropout=0.5), num_positions=D, num_states=S)
    with pytest.raises(AssertionError, match="dropout must be by nn.Dropout modules"):
        check_backbone(Functional(D, S, width=16, depth=1, heads=2), num_positions=D, num_states=S)
