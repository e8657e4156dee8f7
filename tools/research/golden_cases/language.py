"""Reference numbers of the language system: MDLM's network and samplers, self-BLEU."""

import torch
from torch import Tensor

from di4c.contracts import Context, Prediction, strict_load
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.heads.sinusoidal_token import SinusoidalToken
from di4c_plugins.metrics.self_bleu import self_bleu
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.mdlm import Mdlm
from di4c_plugins.processes.noise import discretised
from di4c_plugins.samplers.analytic import analytic_probs
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral, gumbel_argmax, most_likely, reverse_probs
from di4c_plugins.teachers.containers import below
from di4c_plugins.teachers.mdlm import published_backbone
from golden_cases.checks import Check, Kind, exact, known, renamed

BLEU = 1e-12  # relative, float64
NETWORK = 1e-4  # relative, float32 with another order of the matrix products
STEP = 1e-5  # relative, float32
CANCELLING = 1e-4  # relative; the reference's float32 score is up to e^σ ≈ 1000 times the probability it leads to
NOISE_NAMES = {"loglinear": "log-linear", "cosine": "cosine", "cosinesqr": "cosine-squared"}
MASK_COLUMN = 1e-6  # relative; the column is about −1e6
NETWORK_OPTIONS = {
    "width": "hidden_size", "depth": "n_blocks", "heads": "n_heads", "conditioning_width": "cond_dim",
    "sigma_features": "frequency_embedding_size", "mlp_ratio": "mlp_ratio", "rotary_base": "rotary_base",
}  # fmt: skip
"""Of MdlmDiT: this project's name → the reference's."""


def backbone_of(tensors: dict[str, Tensor], config: dict) -> MdlmDiT:
    """The network of a case with its weights, in evaluation mode."""
    backbone = MdlmDiT(config["length"], config["vocab_size"], **renamed(config, NETWORK_OPTIONS))
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
        checks.append(Check(f"logits_{suffix}", logits, tensors[f"out.logits_{suffix}"], NETWORK))
        log_p, want = Prediction.from_logits(logits, x, subs).log_p0(), tensors[f"out.subs_logprob_{suffix}"]
        checks += subs_checks(f"subs_logprob_{suffix}", log_p, want, x, config["mask_index"])
    return checks


def subs_checks(name: str, got: Tensor, want: Tensor, x: Tensor, mask_index: int) -> list[Check]:
    """Log-probabilities of the permitted states at masked positions; all that is −1e6 or 0 relatively."""
    masked = x == mask_index
    permitted = torch.ones(want.shape[-1], dtype=torch.bool)
    permitted[mask_index] = False
    return [
        Check(f"{name}, permitted", got[masked][:, permitted], want[masked][:, permitted], NETWORK),
        Check(f"{name}, mask column", got[masked][:, mask_index], want[masked][:, mask_index], MASK_COLUMN),
        Check(f"{name}, visible", got[~masked], want[~masked], MASK_COLUMN),
    ]


def di4c_dit(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    backbone, x, sigma = backbone_of(tensors, config), tensors["in.x"], tensors["in.sigma"]
    head = SinusoidalToken(
        1,
        backbone,
        features=config.get("latent_feature_dim", 128),
        hidden=tensors["state.latent_projection.0.bias"].numel(),
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
    context = lambda lam: head.context(tensors[lam][:, None, None]) if lam else None
    found = {name: logits_at(backbone, x, at, context(lam)) for name, (at, lam) in runs.items()}
    return [Check(name, logits, tensors[f"out.{name}"], NETWORK) for name, logits in found.items()]


def absorbing_sampler(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    process = Mdlm(
        config["vocab_size"] - 1,
        noise=NOISE_NAMES[config["noise"]],
        epsilon=config["eps"],
        mask_index=config["mask_index"],
    )
    given, want = below(tensors, "in."), below(tensors, "out.")
    numbers = {name: int(name.rsplit("_", 1)[1]) for name in want if name.startswith("sampling_grid_")}
    end = config["sampling_eps"]  # the times of the sampler's steps, and its end
    times = MdlmAncestral(process, end=end).times
    grids = {name: torch.tensor([*times(steps)[:-1], end]) for name, steps in numbers.items()}
    return [
        *known(schedule(process, given["t"], given["dt"], config.get("T", 0)), tensors, STEP, "elementwise"),
        *step_checks(process, given, want),
        *known(grids, tensors, STEP),
    ]


def schedule(process: Mdlm, t: Tensor, dt: Tensor, grid: int) -> dict[str, Tensor]:
    """σ, its rate, the mask probabilities, and what a network trained on a grid is told."""
    s, on_grid, masked = t - dt, discretised(t, grid) if grid else t, process.schedule.masked
    return {
        "sigma_t": process.sigma(t),
        "sigma_s": process.sigma(s),
        "dsigma_rate_t": process.schedule.rate(t),
        "move_chance_t": masked(t),
        "move_chance_s": masked(s),
        f"cond_sigma_T{grid}": process.sigma(on_grid),
        f"move_chance_T{grid}": masked(on_grid),
    }


def step_checks(process: Mdlm, given: dict[str, Tensor], want: dict[str, Tensor]) -> list[Check]:
    """One ancestral step, one analytic step and the last pass on given log-probabilities."""
    x, mask, shape = given["x"], process.mask_index, given["log_p_x0"].shape
    log_p = given["log_p_x0"].flatten(0, 1)
    times = [time.repeat_interleave(shape[1]) for time in (given["t"], given["t"] - given["dt"])]
    m_t, m_s = map(process.schedule.masked, times)
    sigma_t, sigma_s = (process.sigma(time).double() for time in times)
    q_xs = reverse_probs(log_p, m_t, m_s, mask)
    update = gumbel_argmax(q_xs, want["gumbel_uniforms"].flatten(0, 1)).view_as(x)
    analytic = analytic_probs(log_p.double(), x.flatten(), sigma_t, sigma_s, mask)
    final = most_likely(log_p, mask).view_as(x)
    return [
        Check("ancestral_q_xs", q_xs.view(shape), want["ancestral_q_xs"], STEP),
        exact("ancestral_sampled_update", update, want["ancestral_sampled_update"]),
        exact("ancestral_next_x", torch.where(x == mask, update, x), want["ancestral_next_x"]),
        Check("analytic_probs", analytic.view(shape), want["analytic_probs"], CANCELLING),
        exact("final_denoise_tokens", torch.where(x == mask, final, x), want["final_denoise_tokens"]),
    ]


def self_bleu_case(tensors: dict[str, Tensor], config: dict) -> list[Check]:
    sentences = [[config["vocab"][token] for token in row if token >= 0] for row in tensors["in.ids"].tolist()]
    each = torch.tensor(self_bleu(sentences, config.get("gram", 4)), dtype=torch.float64)
    return [
        Check("per_sentence", each, tensors["out.per_sentence"], BLEU),
        Check("self_bleu", config.get("scale", 100) * each.mean(), tensors["out.self_bleu"], BLEU),
    ]


KINDS = [
    Kind("self_bleu", frozenset({"out.self_bleu"}), self_bleu_case),
    Kind("absorbing_sampler", frozenset({"out.ancestral_q_xs", "out.analytic_probs"}), absorbing_sampler),
    Kind("mdlm_dit", frozenset({"out.logits_sigma0", "out.subs_logprob_sigma0"}), mdlm_dit),
    Kind("di4c_dit", frozenset({"out.logits_sigma0_lam_b", "out.logits_sigma0_no_lam"}), di4c_dit),
]
