"""Codes of images made on the device against those of the CPU."""

import torch

from di4c_plugins.tokenizers.pixels import images_of
from di4c_plugins.tokenizers.vqgan import VQGAN

SIDE, LEVELS, CODES = 16, 16, 64


def made() -> VQGAN:
    """A network with random weights, its code vectors where latents lie."""
    torch.manual_seed(0)
    network = VQGAN(
        image_size=SIDE, channels=1, ch=16, ch_mult=[1, 2], num_res_blocks=1, z_channels=8, num_codes=CODES, embed_dim=4
    ).eval()
    with torch.no_grad():
        latents = network.latents(pictures(64)).movedim(1, -1).flatten(0, -2)
    network.quantize.embedding.weight.data.copy_(latents[torch.linspace(0, len(latents) - 1, CODES).long()])
    return network


def pictures(count: int) -> torch.Tensor:
    levels = torch.randint(LEVELS, (count, SIDE * SIDE), generator=torch.Generator().manual_seed(1))
    return images_of(levels, (1, SIDE, SIDE), LEVELS)


@torch.no_grad()
def test_codes_are_those_of_the_cpu_but_where_two_vectors_are_equally_near(device, record_property):
    network, images = made(), pictures(256 if device == "cuda" else 16)
    wanted, latents = network.encode(images), network.latents(images).movedim(1, -1).flatten(0, -2)
    table = network.quantize.embedding.weight
    found = network.to(device).encode(images.to(device)).cpu()
    different = found != wanted
    record_property("differing_codes", float(different.float().mean()))
    assert different.float().mean() < 0.001 and len(wanted.unique()) > 10
    distance = torch.cdist(latents.double(), table.cpu().double())
    ours, theirs = (distance.gather(1, codes.flatten()[:, None]) for codes in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(network.decode(wanted.to(device)).cpu(), made().decode(wanted), rtol=1e-3, atol=1e-3)
