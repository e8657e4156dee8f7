"""Reference numbers of the VQ-image system: MaskGIT's network and schedules, the VQGAN."""

import torch
from torch import Tensor

from di4c.contracts import Context
from di4c_plugins.backbones.maskgit import MaskGITBackbone, with_tied_output_head
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.processes.maskgit import RatioSchedule
from di4c_plugins.samplers.maskgit import reveal_counts
from di4c_plugins.teachers.containers import below
from di4c_plugins.tokenizers.vqgan import VQGAN
from golden_cases.checks import Check, Kind, exact, known, renamed

NETWORK = 1e-4
NETWORK_OPTIONS = {
    "num_classes": "nclass", "width": "hidden_dim", "depth": "depth", "heads": "heads", "mlp_width": "mlp_dim", "dropout": "dropout",
}  # fmt: skip
"""Of MaskGITBackbone: this project's name → the reference's."""

UNIFORMS = 2500
"""On a grid of so many uniforms the reference's training fractions were counted, unless the case says otherwise."""


def maskgit_network(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """Logits of the MaskGIT transformer with all, some or no labels, and of the student with its λ token."""
    state = below(tensors, "state.")
    options = renamed(config, NETWORK_OPTIONS)
    backbone = MaskGITBackbone(config["tokens"], config["codebook_size"] + 1, **options).eval()
    network = {name: value for name, value in state.items() if not name.startswith("latent_projection.")}
    backbone.load_state_dict(with_tied_output_head(network))
    context = _lambda_context(backbone, state, tensors["in.z"], config) if "in.z" in tensors else None
    labels = tensors["in.y"]
    dropped = torch.where(tensors["in.drop_label"], -1, labels)
    variants = {
        "logits_cond": (labels, context),
        "logits_mixed_drop": (dropped, context),
        "logits_uncond": (None, context),
        "logits_cond_no_z": (labels, None),
    }
    x_t = tensors["in.code"].flatten(1)
    return known({name: _logits(backbone, x_t, *given) for name, given in variants.items()}, tensors, NETWORK)


@torch.no_grad()
def _logits(backbone: MaskGITBackbone, x_t: Tensor, cond: Tensor | None, context: Context | None) -> Tensor:
    """All logits of a batch: [B, D, S]."""
    features = backbone(x_t, torch.ones(len(x_t)), cond, context)
    rows = torch.arange(x_t.numel())
    return backbone.readout(features.flatten(0, 1)[:, None], rows % x_t.shape[1], x_t.flatten()).view(*x_t.shape, -1)


@torch.no_grad()
def _lambda_context(backbone: MaskGITBackbone, state: dict[str, Tensor], lam: Tensor, config: dict) -> Context:
    """The reference's λ token of λ [B, 1]."""
    features = config["latent_feature_dim"]
    hidden = state["latent_projection.0.weight"].shape[0]
    head = SinusoidalToken(lam.shape[1], backbone, features=features, hidden=hidden)
    head.projection.load_state_dict(below(state, "latent_projection."))
    return head.context(lam[:, None])


def maskgit_schedule(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """Tokens revealed in every step of every schedule, and the masked fractions in training."""
    checks = []
    for name, wanted in below(tensors, "out.counts_").items():
        got = torch.full_like(wanted, -1)
        listed = config["steps"]  # the number of steps of every row, or of the first and the last
        numbers = listed if len(listed) == len(wanted) else range(listed[0], listed[-1] + 1)
        for row, steps in enumerate(numbers):
            got[row, :steps] = reveal_counts(RatioSchedule(name), config["tokens"], steps)
        checks.append(exact(f"counts_{name}", got, wanted))
    for name, wanted in below(tensors, "out.mask_fraction_").items():
        t = 1 - torch.linspace(0, 1, len(wanted))
        fraction = RatioSchedule(name).masked(t)
        resolution = 1.01 / config.get("uniforms", UNIFORMS)
        checks.append(Check(f"mask_fraction_{name}", fraction, wanted, resolution, "absolute"))
    return checks


@torch.no_grad()
def vqgan_encode(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """Latents before the quantiser, their codes, and the code vectors.

    A code is compared where its squared distance is smaller than the runner-up's by more than rounding.
    """
    network = _vqgan(tensors, config)
    latents = network.latents(tensors["in.image"])
    codes = network.quantize(latents)
    wanted = tensors["out.codes"]
    if "out.margin" in tensors:
        rounding = NETWORK * latents.square().sum(1).mean()
        clear = tensors["out.margin"].view_as(wanted) > rounding
        codes = torch.where(clear, codes, wanted)
    vectors = network.quantize.embedding(codes).movedim(-1, 1)
    return [
        Check("pre_quant", latents, tensors["out.pre_quant"], NETWORK),
        exact("codes", codes, wanted),
        Check("quant", vectors, tensors["out.quant"], NETWORK),
    ]


@torch.no_grad()
def vqgan_decode(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    network = _vqgan(tensors, config)
    codes = {"image": tensors.get("in.codes"), "image_from_encode": tensors.get("in.codes_enc")}
    images = {name: network.decode(given.flatten(1)) for name, given in codes.items() if given is not None}
    return known(images, tensors, NETWORK)


def _vqgan(tensors: dict[str, Tensor], config: dict) -> VQGAN:
    """The network of a case, whose state may hold the encoder's half or the decoder's half alone."""
    dd = config["ddconfig"]
    network = VQGAN(
        image_size=dd["resolution"],
        channels=dd["in_channels"],
        num_codes=config["n_embed"],
        embed_dim=config["embed_dim"],
        **{key: dd[key] for key in ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "z_channels")},
    ).eval()
    state = below(tensors, "state.")
    present = {name.split(".")[0] for name in state}
    own = network.state_dict()
    network.load_state_dict(state | {name: value for name, value in own.items() if name.split(".")[0] not in present})
    return network


KINDS = [
    Kind("maskgit_schedule", frozenset({"out.counts_arccos"}), maskgit_schedule),
    Kind("maskgit", frozenset({"in.code", "in.y", "in.drop_label"}), maskgit_network),
    Kind("vqgan_encode", frozenset({"in.image", "out.pre_quant"}), vqgan_encode),
    Kind("vqgan_decode", frozenset({"in.codes", "out.image"}), vqgan_decode),
]
