"""Token caches of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from di4c.contracts import Batch, DataSource, Draws, Split
from di4c.errors import DataError, SpecError
from di4c.testing import check_dataset
from di4c_plugins.datasets.vq_tokens import VQTokens
from di4c_plugins.tokenizers.pixels import images_of, levels_of
from di4c_plugins.tokenizers.vqgan import VQGAN

SIDE, LEVELS = 8, 16
OPTIONS = dict(channels=1, ch=8, ch_mult=[1, 2], num_res_blocks=1, z_channels=4, num_codes=6, embed_dim=3)


class Pictures(DataSource, Split):
    """Twenty random pictures; counts how often it is read."""

    num_positions, num_states, num_classes = SIDE * SIDE, LEVELS, 3

    def __init__(self):
        self.x_0 = torch.randint(LEVELS, (20, SIDE * SIDE), generator=torch.Generator().manual_seed(0))
        self.reads = 0

    def split(self, name):
        return self

    def __len__(self):
        return 20

    def batch(self, indices, draws=None):
        self.reads += 1
        return Batch(self.x_0[indices], indices % 3)

    def fingerprint(self):
        return "pictures"


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    network = VQGAN(image_size=SIDE, **OPTIONS)
    with torch.no_grad():  # code vectors where latents lie, so that all codes occur
        latents = network.eval().latents(images_of(Pictures().x_0, network.image_shape, LEVELS))
    network.quantize.embedding.weight.copy_(latents.movedim(1, -1).reshape(-1, 3)[::53][:6])
    return network


def make(tmp_path, tokenizer, **options):
    return VQTokens(dataset=Pictures(), tokenizer=tokenizer, cache=str(tmp_path / "cache"), batch_size=7, **options)


def test_the_codes_are_the_tokenizers(tmp_path, tokenizer):
    data = make(tmp_path, tokenizer)
    check_dataset(data)
    batch = data.split("train").batch(torch.tensor([13, 2]))
    images = images_of(data.dataset.x_0[[13, 2]], tokenizer.image_shape, LEVELS)
    assert torch.equal(batch.x_0, tokenizer.eval().encode(images))
    assert batch.cond.tolist() == [1, 2]
    assert data.num_positions == 16 and data.num_states == 6 and data.num_classes == 3


def test_images_are_read_once(tmp_path, tokenizer):
    make(tmp_path, tokenizer).split("train")
    again = make(tmp_path, tokenizer)
    again.split("train").batch(torch.arange(20))
    assert again.dataset.reads == 0


def test_another_tokenizer_has_another_cache(tmp_path, tokenizer):
    data = make(tmp_path, tokenizer)
    before = data.fingerprint()
    tokenizer.quantize.embedding.weight[0] += 1
    assert make(tmp_path, tokenizer).fingerprint() != before
    assert make(tmp_path, tokenizer, flips=True).fingerprint() != make(tmp_path, tokenizer).fingerprint()


def test_mirror_images_are_drawn_in_training_only(tmp_path, tokenizer):
    data = make(tmp_path, tokenizer, flips=True)
    train, indices = data.split("train"), torch.arange(20)
    plain = train.batch(indices).x_0
    images = images_of(data.dataset.x_0, tokenizer.image_shape, LEVELS)
    assert len(plain.unique()) > 3
    mirrored = tokenizer.encode(images.flip(-1))
    assert torch.equal(plain, tokenizer.encode(images))
    drawn = train.batch(indices, Draws(0, count=20)).x_0
    is_plain, is_mirrored = (drawn == plain).all(1), (drawn == mirrored).all(1)
    assert (is_plain | is_mirrored).all() and not is_plain.all() and not is_mirrored.all()
    assert data.split("test").codes.shape[1] == 1


def test_samples_are_shown_as_decoded_images(tmp_path, tokenizer):
    data = make(tmp_path, tokenizer)
    x = torch.randint(7, (6, 16), generator=torch.Generator().manual_seed(1))  # 6 is a mask that was left
    file = data.save_grid(x, tmp_path / "grid", torch.tensor([0, 0, 1, 1, 2, -1]))
    assert file.suffix == ".png" and np.asarray(Image.open(file)).std() > 0
    assert torch.equal(data.pixels(x), levels_of(tokenizer.decode(x.clamp_max(5)), LEVELS))


def test_levels_and_pixel_values_are_inverse():
    levels = torch.arange(LEVELS).repeat(4)[None]
    images = images_of(levels, (1, SIDE, SIDE), LEVELS)
    assert images.min() == -1 and images.max() == 1
    assert torch.equal(levels_of(images, LEVELS), levels)


def test_errors_say_what_is_wrong(tmp_path, tokenizer):
    larger = VQGAN(image_size=16, **OPTIONS)
    with pytest.raises(SpecError, match="1 × 16 × 16, but data.dataset has 64"):
        make(tmp_path, larger)
    data = make(tmp_path, tokenizer)
    data.split("train")
    data.tokenizer.num_positions = data.num_positions = 15
    with pytest.raises(DataError, match="remove the folder"):
        data.split("train")
