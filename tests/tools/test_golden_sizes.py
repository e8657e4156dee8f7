"""The verifier on cases of other sizes, seeds, names and orders of keys than those in tests/golden.

The losses and the Markov chain are written down independently here; networks' outputs are their own, since only what depends on
the sizes is looked at. Every case must pass, and fail when one result is changed.
"""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

from di4c.mixture.reference import dense_control_variate, dense_log_probs, dense_monte_carlo, dense_sums

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import itertools

import verify
from golden_cases import language, pixels, vq
from golden_cases.registered import all_kinds, kind_of


def drawn(seed: int):
    """(normal, integers): functions of shapes that draw from one generator."""
    generator = torch.Generator().manual_seed(seed)
    return (
        lambda *shape: torch.randn(*shape, generator=generator),
        lambda high, *shape: torch.randint(high, shape, generator=generator),
    )


def losses(kind: str, B: int, M: int, D: int, S: int, seed: int, N: int | None = None) -> tuple[dict, dict]:
    """A case of Di4C's losses by plain formulas in float64, rounded to float32 for the shipped numbers."""
    normal, integers = drawn(seed)
    N = N or M
    given = {
        "student_logits_t": normal(B, M, D, S), "student_logits_u": normal(B, N, D, S), "teacher_logits_t": normal(B, D, S),
        "x0": integers(S, B, D), "x0_samples": integers(S, B, N, D),
    }  # fmt: skip
    t = torch.rand(B, generator=torch.Generator().manual_seed(seed))
    t[0] = 0.01
    config = {
        "S": S,
        "D": D,
        "M": M,
        "alpha_const": 0.3,
        "alpha_t_main": "linear",
        "distil_delta": 0.02,
        "r_delta": 0.05,
    }
    given["r" if kind == "maskgit" else "t"] = 1 - t if kind == "maskgit" else t
    wide = {name: value.double() if value.is_floating_point() else value for name, value in given.items()}
    t = 1 - wide["r"] if kind == "maskgit" else wide["t"]
    leaf = wide["student_logits_t"].requires_grad_()
    log_p = dense_log_probs(leaf, wide["x0"], None)
    log_weights, active = torch.full((M,), -math.log(M), dtype=torch.float64), torch.ones(B, D)
    teacher, target = wide["teacher_logits_t"].softmax(-1), wide["student_logits_u"].softmax(-1).mean(1)
    data = dense_sums(log_p, active, log_weights, wide["x0"][:, None], teacher)
    far = dense_sums(log_p, active, log_weights, wide["x0_samples"], target)
    near_t = t <= 0.05 if kind == "maskgit" else t < 0.02
    results = {}
    for variant, whole in (("cv", dense_control_variate), ("nocv", dense_monte_carlo)):
        indep = (data["kl"], far["kl"]) if variant == "cv" else (0.0, 0.0)
        data_cor, far_cor = whole(data, log_weights) - indep[0], whole(far, log_weights) - indep[1]
        data_loss = 0.3 * t * data_cor + indep[0]
        distil = near_t * data["componentwise_kl"] * (20.0 if kind == "maskgit" else 1.0)
        consis = ~near_t * (far_cor + indep[1])
        each = data_loss + distil + consis
        (gradient,) = torch.autograd.grad(each.mean(), leaf, retain_graph=True)
        names = ("distil_weighted", "consis_weighted") if kind == "maskgit" else ("distil", "consis")
        found = {"data_cor": data_cor, "data": data_loss, names[0]: distil, names[1]: consis, "per_example": each,
                 "total": each.mean(), "grad": gradient, "time_coeff": 0.3 * t}  # fmt: skip
        results |= {f"aux64.{variant}.{name}": value.detach() for name, value in found.items()}
    results |= {name.replace("aux64", "out"): value.float() for name, value in results.items()}
    return {f"in.{name}": value.detach() for name, value in given.items()} | results, config


def gaussian(B: int, D: int, S: int, seed: int, **config) -> tuple[dict, dict]:
    """Rates, transitions by matrix exponentials, and posteriors of the Gaussian-target chain."""
    normal, integers = drawn(seed)
    config = {
        "S": S,
        "rate_sigma": 2.5,
        "Q_sigma": 9.0,
        "time_exponential": 50.0,
        "time_base": 2.0,
        "eps_ratio": 1e-9,
    } | config
    s, t = torch.rand(2, B, generator=torch.Generator().manual_seed(seed)).sort(0).values
    x = torch.arange(S, dtype=torch.float64)
    log_pi = -((x + 1 - S / 2) ** 2) / (2 * config["Q_sigma"] ** 2)
    rate = torch.zeros(S, S, dtype=torch.float64)
    for a in range(S):
        for b in range(a + 1, S):
            inwards = math.exp(-((b - a - 1) ** 2) / config["rate_sigma"] ** 2)
            back = inwards * math.exp(-abs(log_pi[a] - log_pi[b]))
            rate[a, b], rate[b, a] = (inwards, inwards * math.exp(log_pi[a] - log_pi[b])) if a + b < S else (
                inwards * math.exp(log_pi[b] - log_pi[a]), inwards)  # fmt: skip
            assert back <= inwards
    rate -= rate.sum(1).diag()
    tau = [config["time_base"] * (config["time_exponential"] ** time.double() - 1) for time in (t, s)]
    qt, qs, qts = (torch.linalg.matrix_exp(rate * e[:, None, None]) for e in (tau[0], tau[1], tau[0] - tau[1]))
    x_t, x_0 = integers(S, B, D), integers(S, B, D)
    batch = torch.arange(B)[:, None]
    reach = qt[batch, x_0, x_t]
    p_0 = (normal(B, D, S).double().softmax(-1) * qt.mT[batch, x_t]).float()
    p_0 = p_0 / p_0.sum(-1, keepdim=True)
    columns = qts.mT[batch, x_t] + 1e-9
    marginal = (
        torch.einsum("bdi,bij->bdj", p_0.double() / ((qs + 1e-9) @ (qts + 1e-9)).mT[batch, x_t], qs + 1e-9) * columns
    )
    given = (qs[batch, x_0] + 1e-9) * columns
    given = given / given.sum(-1, keepdim=True)
    prior = log_pi.softmax(0)
    tensors = {
        "in.t": t, "in.s": s, "in.xt": x_t, "in.x0": x_0, "in.p0t": p_0,
        "out.marginal_posterior": marginal.float(), "out.log_unnormalised": marginal.log().float(), "out.cond_posterior": given.float(),
        "aux64.marginal_posterior": marginal, "aux64.cond_posterior": given, "aux64.reach_x0": reach,
        "out.qt0": qt.float(), "out.qs0": qs.float(), "out.qts": qts.float(),
    }  # fmt: skip
    rates = {
        "in.t": t, "in.s": s, "out.base_rate": rate.float(), "out.transition_t": qt.float(), "out.transition_ts": qts.float(),
        f"out.transition_t_row{S // 2}": qt[:, S // 2].float(), "out.initial_dist": prior, "aux64.exact_transition_t": qt,
    }  # fmt: skip
    return {"posterior": tensors, "rate": rates}, config


def filled(run, tensors: dict, config: dict, names: list[str]) -> tuple[dict, dict]:
    """The case with `names` as the project computes them: empty results are put in, and what was got is taken out."""
    checks = run(tensors | {f"out.{name}": torch.zeros(()) for name in names}, config)
    found = {check.name: check.got for check in checks}
    return tensors | {f"out.{name}": found[name].clone() for name in names}, config


def mdlm(B, D, S, width, heads, depth, seed, mlp_ratio=4, latent=None):
    """A text network, without λ or (latent: width of its sinusoids) with it."""
    normal, integers = drawn(seed)
    config = {"hidden_size": width, "n_heads": heads, "cond_dim": 12, "n_blocks": depth, "length": D, "vocab_size": S,
              "mask_index": S - 1, "mlp_ratio": mlp_ratio, "frequency_embedding_size": 32}  # fmt: skip
    backbone = language.MdlmDiT(
        D, S, width=width, depth=depth, heads=heads, conditioning_width=12, sigma_features=32, mlp_ratio=mlp_ratio
    )
    ours, theirs = "readout.linear.", "output_layer.linear."
    state = {name.replace(ours, theirs): 0.2 * normal(*value.shape) for name, value in backbone.state_dict().items()}
    tensors = {f"state.{name}": value for name, value in state.items()} | {
        "in.x": integers(S, B, D),
        "in.sigma": normal(B).abs(),
    }
    if latent:
        head = language.SinusoidalToken(1, backbone, features=latent, hidden=20)
        tensors |= {
            f"state.latent_projection.{k}": 0.2 * normal(*v.shape) for k, v in head.projection.state_dict().items()
        }
        tensors |= {"in.lam": torch.rand(B), "in.lam_b": torch.rand(B)}
        names = ["logits_sigma0", "logits_sigma0_lam_b", "logits_sigma", "logits_sigma0_no_lam"]
        return filled(language.di4c_dit, tensors, config | {"latent_feature_dim": latent}, names)
    tensors["in.x"][0, 0] = S - 1
    network = language.backbone_of(tensors, config)
    subs = language.Subs(language.Mdlm(S - 1, mask_index=S - 1))
    for suffix, sigma in (("sigma0", torch.zeros(B)), ("sigma", tensors["in.sigma"])):
        logits = language.logits_at(network, tensors["in.x"], sigma)
        tensors[f"out.logits_{suffix}"] = logits
        tensors[f"out.subs_logprob_{suffix}"] = language.Prediction.from_logits(logits, tensors["in.x"], subs).log_p0()
    return tensors, config


def maskgit(B, side, codes, classes, seed, student=False):
    normal, integers = drawn(seed)
    config = {"tokens": side * side, "codebook_size": codes, "nclass": classes, "hidden_dim": 24, "depth": 1, "heads": 3,
              "mlp_dim": 20, "dropout": 0.0, "latent_feature_dim": 16}  # fmt: skip
    backbone = vq.MaskGITBackbone(
        side * side, codes + 1, num_classes=classes, width=24, depth=1, heads=3, mlp_width=20, dropout=0.0
    )
    state = {n: 0.2 * normal(*v.shape) for n, v in backbone.state_dict().items() if not n.startswith("readout.")}
    tensors = {f"state.{n}": v for n, v in state.items()}
    tensors |= {
        "in.code": integers(codes + 1, B, side, side),
        "in.y": integers(classes, B),
        "in.drop_label": integers(2, B).bool(),
    }
    names = ["logits_cond", "logits_mixed_drop", "logits_uncond"]
    if student:
        head = vq.SinusoidalToken(1, backbone, features=16, hidden=10)
        tensors |= {
            f"state.latent_projection.{k}": 0.2 * normal(*v.shape) for k, v in head.projection.state_dict().items()
        }
        tensors |= {"in.z": torch.rand(B, 1)}
        names.append("logits_cond_no_z")
    return filled(vq.maskgit_network, tensors, config, names)


def unet(B, shape, S, seed, student=False):
    normal, integers = drawn(seed)
    config = {"S": S, "shape": shape, "ch": 8, "num_res_blocks": 2, "ch_mult": [1, 2, 2], "scale_count_to_put_attn": 2,
              "skip_rescale": False, "time_embed_dim": 8, "lam_embed_dim": 8, "do_lam_embed": student, "lam_scale_factor": 500,
              "fix_logistic": True}  # fmt: skip
    network = pixels.unet_of(config).eval()
    for parameter in network.parameters():
        parameter.data = 0.2 * normal(*parameter.shape)
    tensors = {f"state.net.{name}": value for name, value in network.state_dict().items()}
    tensors |= {"in.x": integers(S, B, math.prod(shape)), "in.t": torch.rand(B)} | (
        {"in.lam": torch.rand(B, 1)} if student else {}
    )
    with torch.no_grad():
        features = network(
            tensors["in.x"], tensors["in.t"], context=pixels._lambda_context(network, tensors.get("in.lam"), config)
        )
        tensors["out.logits"] = network.readout(features, None, None)
    tensors["out.net_out"] = rearrange(features, "b (c h w) two -> b (two c) h w", h=shape[1], w=shape[2]).contiguous()
    tensors["out.probs"] = tensors["out.logits"].softmax(-1)
    return tensors, config


def vqgan(B, side, codes, width, seed):
    normal, integers = drawn(seed)
    options = {"double_z": False, "z_channels": width, "resolution": side, "in_channels": 1, "out_ch": 1, "ch": 32,
               "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
    config = {"ddconfig": options, "n_embed": codes, "embed_dim": width + 1}
    network = vq._vqgan({}, config)
    tensors = {f"state.{name}": 0.2 * normal(*value.shape) for name, value in network.state_dict().items()}
    tensors |= {"in.codes": integers(codes, B, side // 4, side // 4)}
    return filled(vq.vqgan_decode, tensors, config, ["image"])


def schedule(tokens: int, steps: list[int]) -> tuple[dict, dict]:
    """Counts of the linear and cosine schedules for the listed numbers of steps, in plain Python."""
    counts = torch.full((len(steps), max(steps)), -1)
    for row, n in enumerate(steps):
        masked = [round(float(torch.tensor(tokens * (1 - i / n), dtype=torch.float32))) for i in range(n + 1)]
        each = [max(a - b, 1) if a == b else a - b for a, b in itertools.pairwise(masked)]
        each[-1] += tokens - sum(each)
        counts[row, :n] = torch.tensor(each)
    return {"out.counts_linear": counts, "out.counts_arccos": torch.empty(len(steps), 0)}, {
        "tokens": tokens,
        "steps": steps,
    }


def chain(part: str, *sizes, **options):
    found, config = gaussian(*sizes, **options)
    return found[part], config


CASES = {
    "losses_sdtt": lambda: losses("sdtt", 5, 4, 3, 11, seed=1),
    "losses_sdtt, one component": lambda: losses("sdtt", 3, 1, 6, 5, seed=2),
    "losses_sdtt, more targets": lambda: losses("sdtt", 2, 3, 4, 6, seed=3, N=5),
    "losses_sdtt, one example and position": lambda: losses("sdtt", 1, 2, 1, 2, seed=4),
    "losses_maskgit": lambda: losses("maskgit", 6, 2, 5, 9, seed=5),
    "losses_maskgit, one component": lambda: losses("maskgit", 2, 1, 3, 4, seed=6),
    "gaussian_rate, odd S": lambda: chain("rate", 4, 3, 13, seed=7),
    "gaussian_rate, narrow": lambda: chain("rate", 2, 1, 24, seed=8, rate_sigma=0.9, Q_sigma=5.0, time_base=6.0),
    "gaussian_posterior, odd S": lambda: chain("posterior", 3, 4, 15, seed=9),
    "gaussian_posterior, two states": lambda: chain("posterior", 2, 6, 2, seed=10, Q_sigma=3.0),
    "mdlm_dit, other sizes": lambda: mdlm(2, 7, 19, 24, 3, 1, seed=11, mlp_ratio=2),
    "di4c_dit, other sizes": lambda: mdlm(1, 5, 8, 16, 2, 2, seed=12, latent=16),
    "maskgit_teacher, other sizes": lambda: maskgit(2, 3, 7, 4, seed=13),
    "maskgit_student, other sizes": lambda: maskgit(1, 2, 5, 3, seed=14, student=True),
    "tauldr_unet_teacher, other sizes": lambda: unet(2, [1, 8, 4], 7, seed=15),
    "tauldr_unet_student, other sizes": lambda: unet(3, [2, 4, 4], 5, seed=16, student=True),
    "vqgan_decode, other sizes": lambda: vqgan(1, 8, 6, 5, seed=17),
}


@pytest.mark.parametrize("name", CASES)
def test_other_sizes_pass_and_a_wrong_result_fails(name, tmp_path, capsys):
    tensors, config = CASES[name]()
    kind = name.partition(",")[0]
    for number, key in enumerate([None, *[key for key in tensors if key.startswith(("out.", "aux64."))][:2]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        case = dict(reversed(list(tensors.items())))  # another order of keys
        if key is not None:
            case[key] = case[key] + 0.01 * (1 + case[key].abs())
        save_file({k: v.contiguous().clone() for k, v in case.items()}, folder / "a case.safetensors")
        (folder / "a case.json").write_text(json.dumps({"config": config, "kind": kind}))
        failed = verify.golden(folder)
        assert failed == (0 if key is None else 1), (key, capsys.readouterr().out)


def test_the_counts_of_listed_numbers_of_steps():
    tensors, config = schedule(49, [1, 2, 4, 8])
    checks = {
        check.name: check for check in vq.maskgit_schedule({k: v for k, v in tensors.items() if "linear" in k}, config)
    }
    assert checks["counts_linear"].ok


def test_a_kind_is_not_guessed_from_a_name_alone(tmp_path, capsys):
    """An unknown kind whose name begins like a known one is reported as not run, beside one that runs."""
    save_file({"in.order": torch.arange(4), "out.rank": torch.arange(4)}, tmp_path / "maskgit_halton.safetensors")
    (tmp_path / "maskgit_halton.json").write_text(json.dumps({"case": "maskgit_halton", "config": {}}))
    tensors, config = CASES["losses_sdtt"]()
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "x.safetensors")
    (tmp_path / "x.json").write_text(json.dumps({"config": config}))  # known by its tensors
    (tmp_path / "y.safetensors").write_bytes(b"cut")
    (tmp_path / "y.json").write_text("{}")
    assert verify.golden(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "not run: unknown kind of case 'maskgit_halton'" in lines[0]
    assert " ok " in lines[1] and "FAIL  y.json or y.safetensors cannot be read" in lines[2]
    assert lines[3] == "2 cases run, 1 failed, 1 not run"
    assert kind_of("maskgit_halton", {"in.order", "out.rank"}, all_kinds()) is None
