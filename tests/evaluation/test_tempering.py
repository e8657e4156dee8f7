"""Temperature and top-p: their law by enumeration, the same for every sampler, and nothing changed where they are 1."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

import di4c
from di4c.contracts import Draws, Prediction, Tempering
from di4c.contracts.lent import observed, sampling
from di4c.contracts.parameterisation import LOG_ZERO
from di4c.errors import SpecError
from di4c.evaluation.generation import Recipe
from di4c.evaluation.models import Model, student_model
from di4c.evaluation.sweep import Sweep
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.parameterisations.subs import Subs
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.processes.maskgit import MaskGITProcess
from di4c_plugins.processes.uniform import Uniform
from di4c_plugins.samplers.analytic import Analytic
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.samplers.guidance import Guidance
from di4c_plugins.samplers.halton import HaltonSampler
from di4c_plugins.samplers.hybrid import Hybrid
from di4c_plugins.samplers.maskgit import MaskGITSampler
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from di4c_plugins.samplers.tau_leaping import TauLeaping
from di4c_plugins.samplers.tauldr_ancestral import TauLDRAncestral
from tests.evaluation.conftest import PRETRAIN, distill, write_run
from tests.evaluation.systems import Data, Mean, entrant
from tests.systems import tiny_student, tiny_teacher

P = [0.5, 0.25, 0.15, 0.1]
MASK = 4
SAMPLES = 20_000
CASES = [(0.5, 1.0), (2.0, 1.0), (1.0, 0.7), (1.0, 0.8), (0.5, 0.9), (3.0, 0.5), (1e-9, 1.0), (1.0, 1e-9)]


def law(p, temperature, top_p):
    """q by the definition: of all sets of states with enough probability the smallest, of these the most likely."""
    scaled = np.asarray(p, dtype=float) ** (1 / temperature) if temperature > 1e-6 else np.eye(len(p))[np.argmax(p)]
    scaled = scaled / scaled.sum()
    sets = [s for r in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), r)]
    enough = [s for s in sets if scaled[list(s)].sum() >= top_p - 1e-12]
    kept = min(enough, key=lambda s: (len(s), -scaled[list(s)].sum()))
    q = np.where(np.isin(np.arange(len(p)), kept), scaled, 0.0)
    return q / q.sum()


@pytest.mark.parametrize(("temperature", "top_p"), CASES)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_the_law_is_the_nucleus_of_the_power(temperature, top_p, order):
    p = [P[i] for i in order]
    log_p = torch.tensor([*p, 0.0]).log().clamp_min(LOG_ZERO)
    found = Tempering(temperature, top_p)(log_p.expand(2, 3, -1)).exp()
    assert torch.allclose(found, torch.tensor([*law(p, temperature, top_p), 0.0]).to(found).expand_as(found), atol=1e-6)


def test_what_is_impossible_stays_so_and_no_number_stays_none():
    log_p = torch.tensor([0.9, 0.1, 0.0]).log().clamp_min(LOG_ZERO)
    assert torch.allclose(Tempering(1e30)(log_p).exp(), torch.tensor([0.5, 0.5, 0.0]))
    assert Tempering(1e-30)(log_p).exp().tolist() == [1, 0, 0]
    assert Tempering(0.5, 0.5)(torch.full((3,), math.nan)).isnan().all()


def test_of_equally_likely_states_the_first_are_kept():
    assert Tempering(1, 0.5)(torch.full((4,), 0.25).log()).exp().tolist() == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize("given", [0, -1.0, math.nan, math.inf, "1", None, True, [0.5], torch.tensor([0.5])])
@pytest.mark.parametrize("key", ["temperature", "top_p"])
def test_nonsense_is_told(given, key):
    with pytest.raises(SpecError, match=f"{key}: expected a number > 0"):
        Tempering(**{key: given})


def test_top_p_is_at_most_1_and_both_may_be_numbers_of_other_libraries():
    with pytest.raises(SpecError, match="top_p: expected a number > 0 and ≤ 1, found 1.5"):
        Tempering(1.0, 1.5)
    assert Tempering(np.float32(0.5), torch.tensor(0.25)) == Tempering(0.5, 0.25)
    assert Tempering.of(1, 1.0) is None


class Fixed(Model):
    """p(x_0 | x_t) = P wherever the process says nothing, whatever x_t."""

    def __init__(self, process):
        self.process = process
        p = torch.tensor(P + [0.0] * (process.num_states - len(P)))
        self.logits = p.log().clamp_min(LOG_ZERO)

    def denoiser(self, draws):
        return lambda x_t, t, cond=None: self.components(x_t, t, cond, draws, 1)

    def components(self, x_t, t, cond, draws, num):
        logits = self.logits.expand(*x_t.shape, -1)
        return Prediction.from_logits(logits, x_t, Subs(self.process) if self.process.mask_index is not None else None)


ABSORBING = Absorbing(len(P))
NOISE = Uniform(len(P), speed=50.0)
"""Whose state at t = 1 says nothing of x_0."""
SAMPLERS = {
    "ancestral": Ancestral(ABSORBING),
    "ancestral, uniform": Ancestral(NOISE),
    "mdlm-ancestral": MdlmAncestral(ABSORBING),
    "analytic": Analytic(ABSORBING),
    "halton": HaltonSampler(ABSORBING),
    "maskgit": MaskGITSampler(MaskGITProcess(len(P))),
    "hybrid": Hybrid(
        ABSORBING, sampler=Ancestral(ABSORBING), teacher_steps=9, teacher=tiny_teacher(1, len(P), num_classes=None)
    ),
    "tau-leaping": TauLeaping(NOISE, final="draw"),
    "tauldr-ancestral": TauLDRAncestral(NOISE, final="draw"),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("temperature", "top_p"), [(0.5, 1.0), (2.0, 0.8)])
def test_every_sampler_draws_from_that_law(name, temperature, top_p):
    """One step of one position; hybrid's is its teacher's."""
    sampler = SAMPLERS[name]
    tempering, draws = Tempering(temperature, top_p), Draws(0, count=SAMPLES)
    model = Fixed(sampler.process)
    if name == "hybrid":
        all_masked, t = torch.full((1, 1), ABSORBING.mask_index), torch.ones(1, dtype=torch.float64)
        p = sampler.teacher.loaded.predict(all_masked, t).log_p0()[0, 0].exp().tolist()[: len(P)]
    else:
        p = P
    x_0, _ = Recipe(model, sampler, 1, 1, tempering=tempering).batch(None, draws)
    q = law(p, temperature, top_p)
    found = np.bincount(x_0[:, 0], minlength=len(P)) / SAMPLES
    assert (abs(found - q) <= 5 * np.sqrt(q * (1 - q) / SAMPLES) + 1e-12).all(), (found, q)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_mixture_is_tempered_component_by_component(steps):
    """Two steps of two positions, by enumeration: λ is drawn afresh at every step."""
    teacher = tiny_teacher(2, 3, num_classes=None)
    latent = Categorical(atoms=2, weights=[0.7, 0.3])
    model = student_model(tiny_student(teacher, latent_dim=latent.dim), latent, "inf", Draws(0))
    tempering, mask = Tempering(0.6, 0.9), teacher.process.mask_index

    def tempered(x_t, t):
        """q^d(x_0^d | x_t; λ_m): [M, D, S]."""
        rows, time = torch.arange(2), torch.full((1,), t, dtype=torch.float64)
        p = (
            model.components(torch.tensor([x_t]), time, None, Draws(0, count=1), 2)
            .log_probs(rows)
            .detach()
            .double()
            .exp()
        )
        return np.array([[law(p[d, m, :3].numpy(), 0.6, 0.9) for d in range(2)] for m in range(2)])

    def reached(x_t, t):
        """{x_0: probability} of a last step."""
        out = {}
        for w, q in zip([0.7, 0.3], tempered(x_t, t), strict=True):
            options = [range(3) if x == mask else [x] for x in x_t]
            for x_0 in itertools.product(*options):
                out[x_0] = out.get(x_0, 0) + w * math.prod(q[d][x] if x_t[d] == mask else 1 for d, x in enumerate(x_0))
        return out

    expected = {}
    if steps == 1:
        expected = reached((mask, mask), 1.0)
    else:
        first = {}
        for x_0, p in reached((mask, mask), 1.0).items():
            for kept in itertools.product([True, False], repeat=2):  # half of the positions stay masked
                x_s = tuple(x if k else mask for x, k in zip(x_0, kept, strict=True))
                first[x_s] = first.get(x_s, 0) + p / 4
        for x_s, p in first.items():
            for x_0, q in reached(x_s, 0.5).items():
                expected[x_0] = expected.get(x_0, 0) + p * q
    assert teacher.process.schedule.masked(torch.tensor(0.5, dtype=torch.float64)) == pytest.approx(0.5)
    x_0, _ = Recipe(model, Ancestral(teacher.process), 2, steps, tempering=tempering).batch(
        None, Draws(1, count=SAMPLES)
    )
    for pair, q in expected.items():
        found = (x_0 == torch.tensor(pair)).all(1).double().mean().item()
        assert abs(found - q) <= 5 * math.sqrt(q * (1 - q) / SAMPLES) + 1e-12, (pair, found, q)


def test_guidance_combines_what_the_models_say_and_tempers_the_result():
    logits = {0: torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0]), -1: torch.tensor([0.0, 3.0, 0.0, 0.0, 0.0])}

    def denoiser(x_t, t, cond):
        rows = torch.stack([logits[int(c)] for c in cond])[:, None].expand(-1, x_t.shape[1], -1)
        return Prediction.from_logits(rows, x_t)

    x_t, cond, weight = torch.full((1, 2), MASK), torch.tensor([0]), torch.tensor([1.5])
    plain = Guidance(MASK)._combined(denoiser, x_t, weight, cond, weight)[0][0, 0, :MASK].softmax(-1)
    with sampling(Tempering(0.8, 0.9)):
        found = Guidance(MASK).log_probs(observed(denoiser), x_t, weight, cond, weight)[0, 0].exp()
        alone = Guidance(MASK).log_probs(observed(denoiser), x_t, weight, cond, None)[0, 0].exp()
    assert np.allclose(found[:MASK], law(plain.double().numpy(), 0.8, 0.9), atol=1e-6) and found[MASK] == 0
    assert np.allclose(alone[:MASK], law(logits[0][:MASK].softmax(-1).double().numpy(), 0.8, 0.9), atol=1e-6)


def test_the_mask_is_left_out_before_the_nucleus_is_taken():
    """A network whose predictions give the mask most of the probability."""
    p = torch.tensor([0.2, 0.1, 0.1, 0.6]).log()
    prediction = Prediction.from_logits(p.expand(1, 1, -1), torch.tensor([[3]])).tempered(Tempering(1.0, 0.5))
    assert prediction.without(3).log_p0().exp()[0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0])


def test_cells_are_told_apart_by_temperature_and_old_ones_stay(tmp_path):
    from di4c.evaluation.cells import CellStore

    def sweep(tempering):
        return Sweep(
            data=Data(), metrics=[({"name": "mean"}, Mean())], store=CellStore(tmp_path), steps=[1], seeds=[0],
            samples=8, batch_size=4, tempering=tempering,
        )  # fmt: skip

    settings = [
        sweep(t)._cell("samples", entrant(), 1, 0).settings for t in (None, Tempering(0.5), Tempering(0.5, 0.9))
    ]
    assert settings[0] == {k: v for k, v in settings[1].items() if k not in ("temperature", "top_p")}
    assert [s.get("top_p") for s in settings] == [None, 1.0, 0.9]
    sharp, plain = (sweep(tempering).run([entrant()])[0].metrics for tempering in (Tempering(1e-6), None))
    assert sharp["mean"] == 2 * (1 - sharp["labels"]) != plain["mean"]  # the likeliest token of each label, 2 or 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    teacher = write_run(folder / "teacher", PRETRAIN)
    return {"teacher": teacher, "student": write_run(folder / "student", distill(teacher))}


def test_a_loaded_model_takes_both_and_1_changes_no_bit(runs):
    model = di4c.load(runs["student"], device="cpu")
    plain = model.sample(4, 2, seed=0)
    assert torch.equal(plain, model.sample(4, 2, seed=0, temperature=1, top_p=1.0))
    sharp = model.sample(4, 2, seed=0, temperature=0.2, top_p=0.9)
    assert not torch.equal(plain, sharp)
    told = ["eval.temperature=0.2", "eval.top_p=0.9"]
    spoken = di4c.load(runs["student"], device="cpu", overrides=told)
    assert torch.equal(sharp, spoken.sample(4, 2, seed=0))
    assert torch.equal(plain, spoken.sample(4, 2, seed=0, temperature=1, top_p=1))
    with pytest.raises(SpecError, match="temperature: expected a number > 0, found 0"):
        model.sample(1, 1, temperature=0)
    with pytest.raises(SpecError, match=r"eval\.top_p: expected a number > 0 and ≤ 1, found 2"):
        di4c.load(runs["student"], device="cpu", overrides=["eval.top_p=2"])


@pytest.mark.parametrize("sampler", [
    {"name": "maskgit", "guidance": 2.0, "guide": "teacher"},
    {"name": "hybrid", "sampler": "ancestral", "teacher_steps": 1},
])  # fmt: skip
def test_greedy_samples_do_not_depend_on_the_draws_of_tokens(runs, sampler):
    """With one step nothing else is drawn but λ: the teacher of the sampler is tempered too."""
    model = di4c.load(runs["teacher"], device="cpu", overrides=[f"eval.sampler={json.dumps(sampler)}"])
    first, second = (model.sample(3, 1, cond=4, seed=seed, temperature=1e-6) for seed in (0, 1))
    assert torch.equal(first, second) and not torch.equal(first, model.sample(3, 1, cond=4, seed=0))


def test_a_batch_is_tempered_as_a_whole_is():
    sampler, draws = Ancestral(ABSORBING), Draws(3, count=5)
    made = [
        Recipe(Fixed(ABSORBING), sampler, 2, 2, tempering=Tempering(0.5)).batches(None, draws, size) for size in (5, 1)
    ]
    assert made[0].x_0.shape == (5, 2) and made[0].nfe == made[1].nfe == 2
