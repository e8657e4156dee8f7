"""Training a tokenizer: the loss, the moving codebook, and that it learns."""

import pytest
import torch

from di4c.contracts import Batch, Draws
from di4c.errors import SpecError
from di4c.testing import check_objective
from di4c_plugins.datasets.digits import Digits
from di4c_plugins.objectives import codebook
from di4c_plugins.objectives.codebook import CodebookAverage
from di4c_plugins.objectives.vq import VQTokenizer
from di4c_plugins.tokenizers.vqgan import VQGAN, Quantiser


def tokenizer():
    torch.manual_seed(0)
    return VQGAN(
        image_size=8, channels=1, ch=16, ch_mult=[1, 2], num_res_blocks=1, z_channels=8, num_codes=8, embed_dim=4
    )


def stripes(num, seed):
    """Images of 16 levels with each 2 × 2 cell black, white, or striped one way or the other: [n, 64]."""
    patterns = torch.tensor([[[0, 0], [0, 0]], [[15, 15], [15, 15]], [[0, 15], [0, 15]], [[0, 0], [15, 15]]])
    cells = torch.randint(4, (num, 4, 4), generator=torch.Generator().manual_seed(seed))
    return patterns[cells].permute(0, 1, 3, 2, 4).reshape(num, 64)


def test_it_learns_images_made_of_few_patterns():
    objective = VQTokenizer(64, 16, tokenizer=tokenizer(), decay=0.9).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    held_out = Batch(stripes(32, 99))
    before = objective.eval().diagnostics(held_out, Draws(0, count=32))
    for step in range(50):
        terms = objective.train()(Batch(stripes(32, step)), Draws(1, count=32, path=("step", step)), step)
        assert terms["loss"].shape == (32,)
        optimizer.zero_grad()
        terms["loss"].mean().backward()
        optimizer.step()
    after = objective.eval().diagnostics(held_out, Draws(0, count=32))
    assert after["psnr_db"] > before["psnr_db"] + 3
    assert after["codes_in_effect"] > 3


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_codes_and_their_averages_are_those_of_float32_under_autocast(shift):
    """In bfloat16 up to a fifth of the latents had another code than the nearest, and the averages could not be taken."""
    generator = torch.Generator().manual_seed(0)
    latents, table = (torch.randn(size, generator=generator) + shift for size in ((4, 8, 8, 8), (256, 8)))
    quantiser, found = Quantiser(256, 8), []
    quantiser.embedding.weight.copy_(table)
    for enabled in (False, True):
        averages = CodebookAverage(256, 8, decay=0.9, restart_below=0.01)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            codes = quantiser(latents)
            found.append((codes, averages(latents, codes, Draws(1))))
    nearest = torch.cdist(latents.movedim(1, -1).flatten(0, 2).double(), table.double()).argmin(1)
    assert torch.equal(found[0][0].flatten(), nearest)
    assert all(torch.equal(plain, cast) for plain, cast in zip(*found, strict=True))


def test_it_trains_under_autocast():
    objective = VQTokenizer(64, 16, tokenizer=tokenizer()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(Batch(stripes(8, 0)), Draws(1, count=8), 0)
    terms["loss"].mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad)


def test_the_codebook_is_not_a_parameter_and_evaluation_does_not_move_it():
    objective = VQTokenizer(64, 16, tokenizer=tokenizer())
    assert not any("quantize" in name for name, _ in objective.named_parameters())
    assert "model.quantize.embedding.weight" in objective.state_dict()
    before = objective.model.quantize.embedding.weight.clone()
    objective.eval()(Batch(stripes(4, 0)), Draws(0, count=4), 0)
    assert torch.equal(before, objective.model.quantize.embedding.weight)
    objective.train()(Batch(stripes(4, 0)), Draws(0, count=4), 0)
    assert not torch.equal(before, objective.model.quantize.embedding.weight)


def test_it_keeps_the_contract_where_the_codebook_stands_still():
    check_objective(VQTokenizer(64, 17, tokenizer=tokenizer()).eval(), Digits())


def test_the_gradient_passes_straight_through_the_quantiser():
    objective = VQTokenizer(64, 16, tokenizer=tokenizer(), commitment=0.0).eval()
    objective(Batch(stripes(4, 0)), Draws(0, count=4), 0)["loss"].sum().backward()
    assert objective.model.encoder.conv_in.weight.grad.abs().max() > 0


def test_levels_become_pixel_values_in_raster_order():
    objective = VQTokenizer(64, 16, tokenizer=tokenizer())
    x_0 = torch.zeros(1, 64, dtype=torch.int64)
    x_0[0, 9] = 15
    images = objective.images(x_0)
    assert images[0, 0, 1, 1] == 1.0 and images[0, 0, 0, 0] == -1.0


def test_averages_follow_the_assigned_latents():
    average = CodebookAverage(2, 1, decay=0.5, restart_below=0.0)
    latents = torch.tensor([1.0, 3.0, 10.0]).view(3, 1, 1, 1)
    codes = torch.tensor([0, 0, 1]).view(3, 1, 1)
    for _ in range(30):
        table = average(latents, codes, Draws(0, count=3))
    torch.testing.assert_close(table, torch.tensor([[2.0], [10.0]]))


def test_unused_codes_start_again_at_latents_of_the_batch():
    average = CodebookAverage(6, 2, decay=0.9, restart_below=0.01)
    latents = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    table = average(latents, torch.zeros(5, 3, 3, dtype=torch.int64), Draws(2, count=5))
    rows = latents.movedim(1, -1).reshape(-1, 2)
    nearest = torch.cdist(table[1:], rows).min(1)
    assert (nearest.values < 1e-5).all()
    assert len(nearest.indices.unique()) == 5


def test_two_ranks_offer_the_candidates_that_one_would(monkeypatch):
    average = CodebookAverage(7, 2, decay=0.9, restart_below=0.01)
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    whole = average._candidates(z, Draws(3, count=4))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(codebook, "world_size", lambda: 2)
        monkeypatch.setattr(codebook, "rank", lambda rank=rank: rank)
        parts.append(average._candidates(z[rank * 10 : rank * 10 + 10], Draws(3, first=2 * rank, count=2)))
    assert torch.equal(parts[0] + parts[1], whole)


def test_images_of_another_size_are_an_error():
    with pytest.raises(SpecError, match="1 × 8 × 8 are 64 values, but the data have 100"):
        VQTokenizer(100, 16, tokenizer=tokenizer())
