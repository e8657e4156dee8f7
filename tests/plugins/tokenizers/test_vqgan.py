"""The VQGAN: shapes, and loading of published and exported files; its numbers are checked in test_golden_vq.py."""

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from di4c.config.construct import create
from di4c.config.registry import Registry
from di4c.errors import CheckpointError, SpecError
from di4c.testing import check_tokenizer
from di4c_plugins.teachers import hub
from di4c_plugins.tokenizers.vqgan import VQGAN

OPTIONS = dict(
    image_size=12,
    channels=1,
    ch=8,
    ch_mult=[1, 2, 2],
    num_res_blocks=1,
    attn_resolutions=[6],
    z_channels=4,
    num_codes=10,
    embed_dim=3,
)


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    network = VQGAN(**OPTIONS).eval()
    network.quantize.embedding.weight.normal_()
    return network


def test_codes_and_images_have_the_stated_shapes(tokenizer):
    images = torch.rand(2, 1, 12, 12) * 2 - 1
    codes = tokenizer.encode(images)
    assert codes.shape == (2, tokenizer.num_positions) == (2, 9)
    assert codes.dtype == torch.int64 and codes.max() < 10
    assert tokenizer.decode(codes).shape == images.shape


def test_it_holds_its_contract(tokenizer):
    check_tokenizer(tokenizer)


def test_a_code_is_the_nearest_vector(tokenizer):
    latents = torch.randn(2, 3, 3, 3)
    codes = tokenizer.quantize(latents)
    distances = torch.cdist(latents.movedim(1, -1).flatten(0, 2), tokenizer.quantize.embedding.weight)
    assert torch.equal(codes.flatten(), distances.argmin(1))


def test_the_cells_are_in_raster_order(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "images", lambda quantised: quantised)
    codes = torch.zeros(1, 9, dtype=torch.int64)
    codes[0, 2] = 5
    grid = tokenizer.decode(codes)
    torch.testing.assert_close(grid[0, :, 0, 2], tokenizer.quantize.embedding.weight[5])
    torch.testing.assert_close(grid[0, :, 2, 0], tokenizer.quantize.embedding.weight[0])


def test_the_fingerprint_follows_the_weights(tokenizer):
    before = tokenizer.fingerprint()
    assert before == tokenizer.fingerprint()
    tokenizer.quantize.embedding.weight[0, 0] += 1
    assert before != tokenizer.fingerprint()


def published_folder(folder, tokenizer, **changes):
    """A folder like the published VQGAN's, with what training left in it."""
    network = dict(
        double_z=False,
        z_channels=4,
        resolution=12,
        in_channels=1,
        out_ch=1,
        ch=8,
        ch_mult=[1, 2, 2],
        num_res_blocks=1,
        attn_resolutions=[6],
        dropout=0.0,
    )
    params = dict(embed_dim=3, n_embed=10, ddconfig=network, lossconfig={"target": "losses.VQLPIPSWithDiscriminator"})
    (folder / "model.yaml").write_text(yaml.safe_dump({"model": {"params": params | changes}}))
    state = dict(tokenizer.state_dict()) | {"loss.discriminator.main.0.weight": torch.ones(2)}
    torch.save({"state_dict": state, "epoch": 3, "callbacks": {"best": torch.tensor(1.0)}}, folder / "last.ckpt")
    return str(folder)


def test_a_published_folder_needs_no_options(tmp_path, tokenizer):
    loaded = create(Registry.default(), "tokenizers", {"name": "vqgan", "path": published_folder(tmp_path, tokenizer)})
    codes = torch.randint(10, (1, 9))
    torch.testing.assert_close(loaded.eval().decode(codes), tokenizer.decode(codes))


def test_an_export_needs_no_options(tmp_path, tokenizer):
    folder = tmp_path / "run" / "export"
    folder.mkdir(parents=True)
    save_file(tokenizer.state_dict(), str(folder / "model.safetensors"))
    spec = {"task": "tokenizer", "objective": {"name": "vq", "tokenizer": {"name": "vqgan", **OPTIONS}}}
    (folder / "config.json").write_text(json.dumps({"spec": spec}))
    loaded = create(Registry.default(), "tokenizers", {"name": "vqgan", "path": str(tmp_path / "run")})
    assert loaded.fingerprint() == tokenizer.fingerprint()


def test_a_folder_of_a_hub_repository(tmp_path, tokenizer, monkeypatch):
    published_folder(tmp_path, tokenizer)
    asked = []

    def fetch(name, file, revision):
        asked.append((name, file))
        return tmp_path / file.split("/")[-1] if name == "someone/models" else None

    monkeypatch.setattr(hub, "_fetch", fetch)
    loaded = create(Registry.default(), "tokenizers", {"name": "vqgan", "path": "hub:someone/models/images/VQGAN"})
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert set(asked) == {("someone/models", "images/VQGAN/last.ckpt"), ("someone/models", "images/VQGAN/model.yaml")}
    with pytest.raises(CheckpointError, match="hub repository other/models has no file VQGAN/last.ckpt"):
        VQGAN(**OPTIONS, path="hub:other/models/VQGAN")
    asked.clear()
    with pytest.raises(CheckpointError, match="no tokenizer in runs/typo"):
        VQGAN(**OPTIONS, path="runs/typo")
    assert not asked


def test_what_does_not_fit_is_told(tmp_path, tokenizer):
    folder = published_folder(tmp_path, tokenizer, n_embed=12)
    told = r"quantize.embedding.weight \(10, 3\), expected \(12, 3\)[\s\S]*num_codes"
    with pytest.raises(CheckpointError, match=told):
        create(Registry.default(), "tokenizers", {"name": "vqgan", "path": folder})
    with pytest.raises(CheckpointError, match="no tokenizer in .*nowhere"):
        create(Registry.default(), "tokenizers", {"name": "vqgan", "path": str(tmp_path / "nowhere")})
    with pytest.raises(SpecError, match="multiple of 2"):
        VQGAN(**(OPTIONS | {"image_size": 10}))
