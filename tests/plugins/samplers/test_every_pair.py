"""Every sampler with every process: it works as the contract says, or is refused by `check` in one line."""

import json
import math
from dataclasses import replace

import pytest
import torch

from di4c.config.check import check
from di4c.config.construct import create
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.contracts import Draws, Prediction, Raw, Teacher
from di4c.errors import SpecError
from di4c.testing import check_sampler
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.parameterisations.subs import Subs
from tests.config.specs import changed
from tests.evaluation.conftest import PRETRAIN

REGISTRY = Registry.default()
SPEC = Spec.from_dict(changed(PRETRAIN, teacher__parameterisation="raw"))
POSITIONS, STATES, CLASSES = 4, 5, 3
OPTIONS = {
    "uniform": {"speed": 5.0}, "birth-death": {"sigma_min": 0.5, "sigma_max": 10.0},
    "discretised-gaussian": {"rate_sigma": 2.0, "target_sigma": 8.0, "time_base": 1.0, "time_exponential": 10.0},
    "hybrid": {"sampler": "ancestral", "teacher_steps": 1},
    "predictor-corrector": {"corrector_steps": 1, "corrector_scale": 0.5, "corrector_entry_time": 0.5},
}  # fmt: skip
PROCESSES = [{"name": t.name, **OPTIONS.get(t.name, {})} for t in REGISTRY.targets("processes")]
VARIANTS = [{"name": "mdlm", "noise": noise} for noise in ("cosine", "linear", "geometric")] + [
    {"name": "maskgit", "schedule": "cosine"}, {"name": "absorbing", "mask_index": 2}, {"name": "absorbing", "mask_index": 0},
]  # fmt: skip
SAMPLERS = [
    {"name": t.name, **OPTIONS.get(t.name, {})} for t in REGISTRY.targets("samplers")
] + [
    {"name": "maskgit", "guidance": 2.0}, {"name": "maskgit", "annealing": "random", "guidance": 2.0, "guide": "teacher"},
    {"name": "maskgit", "logit_scale": 1e300, "annealing": "none"}, {"name": "halton", "redraw": True, "shift": True},
    {"name": "halton", "logit_scale": 1e6}, {"name": "halton", "guidance": -3.0, "logit_scale": 1e40, "redraw": True},
    {"name": "mdlm-ancestral", "draw": "gumbel", "final": "draw", "end": 0.5}, {"name": "mdlm-ancestral", "cached": True},
    {"name": "tauldr-ancestral", "final": "draw"}, {"name": "tau-leaping", "ordered": False, "final": "draw"},
    {"name": "hybrid", "teacher_steps": 2, "sampler": {"name": "maskgit", "guidance": 1.0}},
    {"name": "hybrid", "teacher_steps": 1, "sampler": {"name": "hybrid", "teacher_steps": 2, "sampler": "mdlm-ancestral"}},
    {"name": "hybrid", "teacher_steps": 1, "sampler": "tau-leaping"},
]  # fmt: skip


def told(entry) -> str:
    return json.dumps(entry).replace('"', "")


class Small(Teacher):
    def __init__(self, process):
        self.process, self.num_positions = process, POSITIONS
        self.parameterisation = Raw() if process.mask_index is None else Subs(process)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.backbone = DiT(POSITIONS, process.num_states, width=8, depth=1, heads=2, num_classes=CLASSES)
        self.freeze()


def checked(sampler, process) -> SpecError | None:
    """What `check` says of the pair."""
    spec = replace(SPEC, process=process, eval=replace(SPEC.eval, sampler=sampler))
    try:
        check(spec, REGISTRY)
    except SpecError as error:
        return error
    return None


@pytest.mark.parametrize("process", PROCESSES + [pytest.param(p, marks=pytest.mark.slow) for p in VARIANTS], ids=told)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=told)
def test_trouble_25_every_pair_works_or_is_refused_by_check(sampler, process):
    refusal = checked(sampler, process)
    made = create(REGISTRY, "processes", process, {"data_states": STATES})
    teacher = Small(made)
    if refusal is None:
        check_sampler(
            create(REGISTRY, "samplers", sampler, {"process": made, "teacher": teacher}), teacher, num_classes=CLASSES
        )
        return
    assert "eval.sampler" in str(refusal) and "Processes that fit: " in str(refusal) and "\n" not in str(refusal)
    with pytest.raises(SpecError):
        create(REGISTRY, "samplers", sampler, {"process": made, "teacher": teacher})


def test_trouble_25_confidence_needs_a_schedule_only():
    assert checked("maskgit", {"name": "absorbing"}) is None and checked("halton", {"name": "mdlm"}) is None
    assert "absorbing, maskgit, mdlm" in str(checked("maskgit", {"name": "uniform", "speed": 1.0}))
    inner = {"name": "hybrid", "teacher_steps": 1, "sampler": "tau-leaping"}
    assert "eval.sampler.sampler: TauLeaping works with ContinuousTimeChain" in str(
        checked(inner, {"name": "absorbing"})
    )


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e30, 1e300])
@pytest.mark.parametrize("name", ["maskgit", "halton"])
def test_trouble_07_an_extreme_scale_is_greedy(name, scale):
    process = create(REGISTRY, "processes", "maskgit", {"data_states": STATES})
    sampler = create(REGISTRY, "samplers", {"name": name, "logit_scale": scale}, {"process": process})
    logits = Draws(0).normal(POSITIONS, STATES + 1)[0].float() - 4.0
    logits[:, process.mask_index] = 40.0

    def denoiser(x_t, t, cond):
        return Prediction.from_logits(logits.expand(len(x_t), -1, -1), x_t)

    x_1 = process.prior(POSITIONS, Draws(0, count=20))
    for steps in (1, 3):
        x_0 = sampler.sample(denoiser, x_1, steps, None, Draws(1, count=20))
        assert (x_0 == logits[:, :STATES].argmax(-1)).all()


@pytest.mark.parametrize("options", [{"logit_scale": math.inf}, {"logit_scale": math.nan}, {"logit_scale": 0.0},
                                     {"guidance": math.inf}, {"guidance": math.nan}, {"guidance": 1e9}], ids=repr)  # fmt: skip
@pytest.mark.parametrize("name", ["maskgit", "halton"])
def test_trouble_07_scales_without_a_meaning_are_refused(name, options):
    process = create(REGISTRY, "processes", "maskgit", {"data_states": STATES})
    with pytest.raises(SpecError, match=next(iter(options))):
        create(REGISTRY, "samplers", {"name": name, **options}, {"process": process})


def test_trouble_08_a_prompt_stays_where_visible_tokens_are_drawn_anew():
    """64 known tokens of 256, a network that reads visible positions anew (`raw`)."""
    process = create(REGISTRY, "processes", "maskgit", {"data_states": STATES})
    sampler = create(REGISTRY, "samplers", {"name": "halton", "redraw": True}, {"process": process})
    logits = Draws(0).normal(256, STATES + 1)[0].float()

    def denoiser(x_t, t, cond):
        return Prediction.from_logits(logits.expand(len(x_t), -1, -1), x_t)

    x_1 = torch.full((2, 256), process.mask_index)
    x_1[:, ::4] = 3
    x_0 = sampler.sample(denoiser, x_1, 8, None, Draws(1, count=2))
    assert (x_0[:, ::4] == 3).all() and (x_0 != process.mask_index).all()


@pytest.mark.parametrize("name", ["absorbing", "maskgit", "mdlm"])
def test_trouble_b19_a_raw_networks_mask_probability_is_shared_out(name):
    """Draws at s = 0 hold no mask, and their log-probabilities are p(v)/(1 − p(mask)), which sum to 1 over the data states."""
    process = create(REGISTRY, "processes", name, {"data_states": 2})
    logits = torch.tensor([0.0, 1.0, 3.0])
    x_t = torch.full((2, 1), process.mask_index)
    prediction = Prediction.from_logits(logits.expand(2, 1, -1), x_t)
    t, s = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    outcomes = torch.tensor([[0], [1]])
    log_p = process.posterior_log_prob(outcomes, x_t, prediction, t, s)[:, 0]
    torch.testing.assert_close(log_p, logits[:2].log_softmax(0), atol=1e-6, rtol=0)
    many = torch.full((4000, 1), process.mask_index)
    now, then = t[:1].expand(4000), s[:1].expand(4000)
    x_0 = process.posterior(
        many, Prediction.from_logits(logits.expand(4000, 1, -1), many), now, then, Draws(0, count=4000)
    )
    assert (x_0 != process.mask_index).all()
    # Tolerance: five standard errors of a frequency.
    assert abs((x_0 == 1).double().mean() - log_p[1].exp()) < 5 * 0.5 / 4000**0.5
