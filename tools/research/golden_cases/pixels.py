"""Reference numbers of the pixel system: the discretised Gaussian chain, its posterior, tauLDR's U-Net."""

import re

import torch
from einops import rearrange
from torch import Tensor

from di4c.contracts import Context
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet
from di4c_plugins.heads.sinusoidal_embedding import SinusoidalEmbedding
from di4c_plugins.processes.discretised_gaussian import DiscretisedGaussian
from di4c_plugins.teachers.containers import below
from golden_cases.checks import Check, Kind, known, renamed

SHIPPED = 1e-5
"""Of what the reference computes in float32, and of exp(R·τ) in float64, whose R is the shipped float32 one."""

AMPLIFIED = 100.0
"""Σ p(x_0)/q(x_t|x_0), by which the posterior amplifies the reference's float32 errors of q (to 1.3e-6, most near 1e-7): where
it is larger, the shipped posterior is not compared, only its float64 form."""

OCCUPIED = 1e-5
"""Logits are compared in bins with at least this mass."""

CLIP = 1e-8
"""The reference sets entries below this to 0."""

CLIPPED = 1e-2
"""Of all entries, the share that float32 noise may put on the other side."""

POSTERIOR = 1e-6
ROW_SUMS = 1e-12
ROW = re.compile(r"^out\.transition_t_row(\d+)$")

NETWORK = 1e-4
NETWORK_OPTIONS = {
    "shape": "shape", "channels": "ch", "multipliers": "ch_mult", "res_blocks": "num_res_blocks",
    "attention_at": "scale_count_to_put_attn", "rescale": "skip_rescale", "time_embed_dim": "time_embed_dim",
    "lam_embed_dim": "lam_embed_dim", "symmetric_logistic": "fix_logistic",
}  # fmt: skip
"""Of TauLDRUNet: this project's name → the reference's."""

LOGITS = 0.1
"""log1p(−exp(l − r) + 1e-6) cancels in a bin with little mass: float64 moves the reference's own logits by 0.04."""

REACHABLE = 1e-5
"""q(x_t|x_0) below which the posterior given x_0 is the reference's rounding noise."""
PROCESS_OPTIONS = {
    "rate_sigma": "rate_sigma", "target_sigma": "Q_sigma", "time_base": "time_base", "time_exponential": "time_exponential",
    "ratio_floor": "eps_ratio",
}  # fmt: skip
"""Of DiscretisedGaussian: this project's name → the reference's."""


def process_of(config: dict) -> DiscretisedGaussian:
    return DiscretisedGaussian(config["S"], **{"ratio_floor": 1e-9} | renamed(config, PROCESS_OPTIONS))


def gaussian_rate(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """Rates, transition matrices and the prior, against float64 where given (the reference's float32 errs by 1e-6)."""
    process, t, s = process_of(config), tensors["in.t"].double(), tensors["in.s"].double()
    index = tensors.get("in.idx", torch.arange(process.num_states))
    at_t, between = process.transition(t), process.transition(t, s)
    got = {
        "base_rate": process.chain.rate[index][:, index],
        "base_rate_diag": process.chain.rate.diagonal(),
        "rate_t": process.rate(t)[:, index][:, :, index],
        "rate_scalar_t": process.time.rate(t),
        "integral_rate_t": process.time.integral(t),
    }
    shipped = {
        "transition_t": at_t[:, index][:, :, index],
        "transition_ts": between[:, index][:, :, index],
        "initial_dist": process.prior_probs,
    }
    shipped |= {name.removeprefix("out."): at_t[:, int(row[1])] for name in tensors if (row := ROW.search(name))}
    exact = {f"exact_{name}": shipped[name] for name in ("transition_t", "transition_ts")}
    checks = [
        *known(got, tensors, SHIPPED),
        *known(shipped, tensors, SHIPPED, "absolute"),
        *known(exact, tensors, SHIPPED, "absolute", of="aux64."),
    ]
    if "out.transition_t_zeros" in tensors:
        zeros = (at_t < CLIP).sum((1, 2))
        tolerance = CLIPPED * at_t[0].numel()
        checks.append(Check("transition_t_zeros", zeros, tensors["out.transition_t_zeros"], tolerance, "absolute"))
    return [*checks, Check("row sums are 1", at_t.sum(-1), torch.ones_like(at_t[..., 0]), ROW_SUMS, "absolute")]


def gaussian_posterior(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """p(x_s|x_t) with x_0 summed out, and given x_0 where x_t can be reached from it."""
    process, t, s = process_of(config), tensors["in.t"].double(), tensors["in.s"].double()
    x_t, x_0, p_0 = tensors["in.xt"], tensors["in.x0"], tensors["in.p0t"]
    summed = process.step_probs(x_t, p_0, t, s)
    given = process.step_probs(x_t, torch.nn.functional.one_hot(x_0, process.num_states), t, s)
    log_p = tensors["out.log_unnormalised"].double().log_softmax(-1)
    reachable = tensors["aux64.reach_x0"] > REACHABLE
    tables = {"qt0": process.transition(t), "qs0": process.transition(s), "qts": process.transition(t, s)}
    amplified = (p_0.double() / tables["qt0"].mT[torch.arange(len(x_t))[:, None], x_t].clamp_min(1e-30)).sum(-1)
    precise = amplified <= AMPLIFIED
    shipped = {
        "marginal_posterior (as shipped)": (summed, tensors["out.marginal_posterior"]),
        "log_unnormalised, normalised": (summed, log_p.exp()),
    }
    return [
        Check("marginal_posterior", summed, tensors["aux64.marginal_posterior"], POSTERIOR, "absolute"),
        Check("cond_posterior", given[reachable], tensors["aux64.cond_posterior"][reachable], POSTERIOR, "absolute"),
        *[Check(name, got[precise], want[precise], SHIPPED, "absolute") for name, (got, want) in shipped.items()],
        *known(tables, tensors, SHIPPED, "absolute"),
    ]


def unet(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    """tauLDR's U-Net: its output, and the truncated logistic's probabilities and logits of the shipped output.

    Not end to end: the output head multiplies rounding errors of net_out by up to exp(2 − log-scale).
    """
    backbone = unet_of(config).eval()
    backbone.load_state_dict(below(tensors, "state.net."))
    x = tensors["in.x"]
    height, width = config["shape"][1:]
    with torch.no_grad():
        features = backbone(x, tensors["in.t"], context=_lambda_context(backbone, tensors.get("in.lam"), config))
    net_out = rearrange(features, "b (c h w) two -> b (two c) h w", h=height, w=width)
    shipped = rearrange(tensors["out.net_out"], "b (two c) h w -> b (c h w) two", two=2)
    logits = backbone.readout(shipped, None, None)
    occupied = tensors["out.probs"] > OCCUPIED
    return [
        Check("net_out", net_out, tensors["out.net_out"], NETWORK),
        Check("probs of the shipped net_out", logits.softmax(-1), tensors["out.probs"], SHIPPED, "absolute"),
        Check("logits of the shipped net_out", logits[occupied], tensors["out.logits"][occupied], LOGITS, "absolute"),
    ]


def unet_of(config: dict) -> TauLDRUNet:
    channels, height, width = config["shape"]
    options = renamed(config, NETWORK_OPTIONS) | ({} if config["do_lam_embed"] else {"lam_embed_dim": 0})
    return TauLDRUNet(channels * height * width, config["S"], dropout=0.0, **options)


def _lambda_context(backbone: TauLDRUNet, lam: Tensor | None, config: dict) -> Context | None:
    """The context of λ [B, 1]."""
    if lam is None:
        return None
    return SinusoidalEmbedding(lam.shape[1], backbone, scale=config["lam_scale_factor"]).context(lam[:, None])


KINDS = [
    Kind("gaussian_rate", frozenset({"out.base_rate", "in.t", "in.s"}), gaussian_rate),
    Kind("gaussian_posterior", frozenset({"in.p0t", "in.xt", "in.x0"}), gaussian_posterior),
    Kind("tauldr_unet", frozenset({"in.x", "in.t", "out.net_out"}), unet),
]
