"""Reference numbers of the language system: MDLM's network and samplers, self-BLEU."""

import torch
from torch import Tensor

from di4c.contracts import Context, Prediction
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.teachers.containers import below, strict_load
from di4c_plugins.teachers.mdlm import published_backbone
from golden_cases.checks import Check, Kind, close

NETWORK = 1e-4  # relative, float32 with another order of the matrix products
MASK_COLUMN = 1e-6  # relative; the column is about −1e6


def backbone_of(tensors: dict[str, Tensor], config: dict) -> MdlmDiT:
    """The network of a case with its weights, in evaluation mode."""
    backbone = MdlmDiT(
        config["length"],
        config["vocab_size"],
        width=config["hidden_size"],
        depth=config["n_blocks"],
        heads=config["n_heads"],
        conditioning_width=config["cond_dim"],
        sigma_features=config.get("frequency_embedding_size", 256),
        mlp_ratio=config.get("mlp_ratio", 4),
        rotary_base=config.get("rotary_base", 10000),
    )
    state = {k: v for k, v in below(tensors, "state.").items() if not k.startswith("latent_projection.")}
    strict_load(backbone, published_backbone(state), "the case")
    return backbone.eval()


@torch.no_grad()
def logits_at(backbone: MdlmDiT, x: Tensor, sigma: Tensor, context: Context | None = None) -> Tensor:
    """Raw logits [B, D, S]."""
    return backbone.readout.linear(backbone.features_at(x, sigma, context))


def mdlm_dit(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    backbone, x, sigma = backbone_of(tensors, config), tensors["in.x"], tensors["in.sigma"]
    subs = Subs(Mdlm(config["vocab_size"] - 1, mask_index=config["mask_index"]))
    checks = []
    for suffix, at in (("sigma0", torch.zeros_like(sigma)), ("sigma", sigma)):
        logits = logits_at(backbone, x, at)
        checks.append(close(f"logits_{suffix}", logits, tensors[f"out.logits_{suffix}"], NETWORK))
        log_p, want = Prediction.from_logits(logits, x, subs).log_p0(), tensors[f"out.subs_logprob_{suffix}"]
        checks += subs_checks(f"subs_logprob_{suffix}", log_p, want, x, config["mask_index"])
    return checks


def subs_checks(name: str, got: Tensor, want: Tensor, x: Tensor, mask_index: int) -> list[Check]:
    """Log-probabilities of the permitted states at masked positions; all that is −1e6 or 0 relatively."""
    masked = x == mask_index
    permitted = torch.ones(want.shape[-1], dtype=torch.bool)
    permitted[mask_index] = False
    return [
        close(f"{name}, permitted", got[masked][:, permitted], want[masked][:, permitted], NETWORK),
        close(f"{name}, mask column", got[masked][:, mask_index], want[masked][:, mask_index], MASK_COLUMN),
        close(f"{name}, visible", got[~masked], want[~masked], MASK_COLUMN),
    ]


def di4c_dit(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    backbone, x, sigma = backbone_of(tensors, config), tensors["in.x"], tensors["in.sigma"]
    head = SinusoidalToken(
        1, backbone, features=config.get("latent_feature_dim", 128), hidden=tensors["state.latent_projection.0.bias"].numel(),
        scale=config.get("lam_scale", 1000),
    )
    strict_load(head.projection, below(tensors, "state.latent_projection."), "the case")
    zero = torch.zeros_like(sigma)
    runs = {
        "logits_sigma0": (zero, "in.lam"),
        "logits_sigma0_lam_b": (zero, "in.lam_b"),
        "logits_sigma": (sigma, "in.lam"),
        "logits_sigma0_no_lam": (zero, None),
    }
    checks = []
    for name, (at, lam) in runs.items():
        context = head.context(tensors[lam][:, None, None]) if lam else None
        checks.append(close(name, logits_at(backbone, x, at, context), tensors[f"out.{name}"], NETWORK))
    return checks


KINDS = [
    Kind("mdlm_dit", frozenset({"out.logits_sigma0", "out.subs_logprob_sigma0"}), mdlm_dit),
    Kind("di4c_dit", frozenset({"out.logits_sigma0_lam_b", "out.logits_sigma0_no_lam"}), di4c_dit),
]
