"""The claims of tools/verify.py theory at small size, and wrong programs that must fail them."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from di4c.config.check import check
from di4c.config.registry import Registry
from di4c.config.spec import read_spec
from di4c.contracts import Prediction
from di4c_plugins.datasets.enumerable import Enumerable
from di4c_plugins.estimators.control_variate import ControlVariate
from di4c_plugins.estimators.exact import Exact
from di4c_plugins.estimators.monte_carlo import MonteCarlo, joint_nll
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.teachers.enumerable import PosteriorMarginals

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import verify
from theory import bound, estimators, matching, mixture_fit, product_error, sampler_cases, samplers, student
from theory.claims import MODULES, Claim, at_most, within
from theory.goodness_of_fit import judged, p_value
from theory.moments import Tables, moments, replicates
from theory.report import write
from theory.spaces import processes, teacher_of

QUICK = ("product_error", "bound", "mixture_fit", "matching", "estimators", "samplers")


def failing(claim: Claim) -> list[str]:
    return [str(line) for line in claim.lines if not line.ok]


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    modules = (product_error, bound, mixture_fit, matching, estimators, samplers)
    return {module.__name__.split(".")[-1]: module.measure(True) for module in modules}


@pytest.mark.parametrize("key", QUICK)
def test_the_claim_holds(claims, key):
    assert claims[key].lines and failing(claims[key]) == []


def test_page_picture_and_stored_file(claims, tmp_path):
    page, picture, stored = write(list(claims.values()), tmp_path, {"commit": "abc"})
    text = re.sub(r"base64,[^\"]+", "", page.read_text(encoding="utf-8"))
    assert text.count("<img") == len(QUICK) and "FAIL" not in text and "http" not in text
    assert min(Image.open(picture).size) > 600
    content = json.loads(stored.read_text(encoding="utf-8"))
    assert [claim["key"] for claim in content["claims"]] == list(QUICK) and content["about"] == {"commit": "abc"}


def test_every_registered_sampler_and_estimator_is_measured(claims):
    measured = " ".join(line.name for line in claims["samplers"].lines)
    assert [t.name for t in Registry.default().targets("samplers") if t.name not in measured] == []
    assert {"monte-carlo", "control-variate"} <= set(claims["estimators"].data["by_m"])


@pytest.mark.slow
def test_the_whole_command_within_its_time():
    done = subprocess.run([sys.executable, ROOT / "tools/verify.py", "theory"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_distilled_student_at_small_size():
    assert failing(student.measure(True)) == []


def test_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verify.py", "theory", "--only", "bound", "--small"])
    assert verify.main() == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{len(bound.KINDS) + 1} lines, 0 failed")
    monkeypatch.setattr(sys, "argv", ["verify.py", "theory", "--only", "bond"])
    assert verify.main() == 1
    assert "no claim named bond; known: " + ", ".join(MODULES) in capsys.readouterr().err


def test_the_specification_of_the_student():
    spec = read_spec(student.SPEC)
    assert check(spec, Registry.default())
    assert spec.objective["consistency"]["estimator"] == "exact"


def test_lines_fail_on_what_is_no_number():
    assert not at_most("x", float("nan"), 1.0).ok and not within("x", float("nan"), 0.0, 1.0).ok
    assert "FAIL" in str(at_most("x", 2.0, 1.0)) and Claim("k", "t", "s", []).ok is False


# Wrong programs.


def test_a_command_with_a_failing_claim_exits_with_1(monkeypatch, capsys):
    monkeypatch.setattr(bound, "FACTOR", 0.25)  # half of what Pinsker's inequality allows
    assert verify.theory(["bound"], small=True) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_product_model_with_wrong_marginals_fails_theorem_1(monkeypatch):
    """Marginals of another table leave an error that no number of steps removes."""
    data, other = (Enumerable(positions=3, states=2, spread=1.5, table_seed=k) for k in (0, 1))
    teacher_of = product_error.teacher_of
    monkeypatch.setattr(product_error, "teacher_of", lambda process, _: teacher_of(process, other))
    steps = [16, 32]
    curve = product_error.measured_curve(Absorbing(2), data, steps) | {"one_step": [1e-2, 2.5e-3]}
    assert any(not line.ok for line in product_error.lines_of("wrong", curve, steps))


def test_mixtures_that_share_their_components_fail_the_fit(monkeypatch):
    """One logit table for all components: a product, whatever M is."""
    honest = mixture_fit.loss

    def shared(data, logits, weights=None):
        return honest(data, logits[:, :1].expand_as(logits), weights)

    monkeypatch.setattr(mixture_fit, "loss", shared)
    data = mixture_fit.permutations()
    assert mixture_fit.fit(data, 6, steps=100) > 0.5 * mixture_fit.total_correlation(data)


class WithoutMarginal(ControlVariate):
    """The control variate without the exact part that makes up for it."""

    def __call__(self, statistics):
        correlated, marginal = super().__call__(statistics)
        return correlated, torch.zeros_like(marginal)


class SumForMean(MonteCarlo):
    """The mean over λ weighted by the likelihood again: Σ p²/Σ p for Σ p/M."""

    def __call__(self, statistics):
        nll = joint_nll(statistics)
        return nll + statistics.joint.std(-1, correction=0).mean(-1), nll.new_zeros(nll.shape)


def test_a_control_variate_that_is_not_made_up_for_has_another_gradient(monkeypatch):
    tables = Tables.random(5, 3, 2)
    assert all(line.ok for line in estimators.gradient_lines(tables, 2000))
    monkeypatch.setattr(estimators, "ControlVariate", WithoutMarginal)
    assert not any(line.ok for line in estimators.gradient_lines(tables, 2000))


def test_an_estimator_whose_bias_stays_is_found():
    tables, sizes = Tables.random(5, 3, 2), [2, 4, 8]
    found = {
        name: {k: moments(replicates(estimator, tables, m, m, 2000, seed=k)) for k, m in enumerate(sizes)}
        for name, estimator in (("monte-carlo", MonteCarlo()), ("wrong", SumForMean()))
    }
    lines = [line for line in estimators.bias_lines(found, sizes) if line.name.startswith("wrong")]
    assert len(lines) == 2 and not any(line.ok for line in lines)


def test_a_wrong_exact_estimator_is_found(monkeypatch):
    class Transposed(Exact):
        def __call__(self, statistics):
            return super().__call__(replace(statistics, log_law=statistics.log_law.flip(-1)))

    monkeypatch.setattr(estimators, "Exact", Transposed)
    assert not any(line.ok for line in estimators.exact_lines(Tables.random(3, 2, 2)))


def test_matching_by_another_processs_form_or_without_its_critic_has_another_gradient(monkeypatch):
    """A chain's x_s^d carries x̂_0^d: log φ − log ψ there, as under masks, is wrong; so is a critic of something else."""
    chain, masked = matching.system("uniform", 1.0), matching.system("absorbing", 1.0)

    def log_ratio(form, critic, teacher, x_s, s, clip):
        return lambda rows: critic.log_probs(rows)[:, 0] - teacher.log_probs(rows)[:, 0]

    with monkeypatch.context() as patched:
        patched.setattr(type(chain.form), "rewards", log_ratio)
        assert matching.gradient_error(chain) > 0.05
    law = torch.full_like(masked.data.probs, 1 / len(masked.data.probs))
    wrong = PosteriorMarginals(masked.teacher.process, masked.data.states, law)
    monkeypatch.setattr(matching.System, "critic", lambda system, logits: wrong)
    assert matching.gradient_error(masked) > 0.05


class Colder(Ancestral):
    """Ancestral steps at a temperature of 0.8, which float32 Gumbel noise amounts to in a milder form."""

    def step(self, denoiser, x_t, t, s, cond, draws):
        def colder(x, time, cond):
            prediction = denoiser(x, time, cond)
            return Prediction.from_logits(prediction.log_p0() / 0.8, x, prediction.parameterisation)

        return super().step(colder, x_t, t, s, cond, draws)


class OneStepFewer(Ancestral):
    """Right steps, but not as many as asked for."""

    def times(self, steps):
        return super().times(steps - 1)


@pytest.mark.parametrize("wrong", [Colder, OneStepFewer])
@pytest.mark.parametrize("process", ["absorbing", "uniform"])
def test_a_wrong_sampler_is_found(wrong, process):
    data = Enumerable(positions=3, states=3, spread=1.5)
    case = sampler_cases.ancestral_case("x", teacher_of(processes(3)[process], data))
    assert samplers.judge(case, 20_000).ok
    verdict = samplers.judge(replace(case, sampler=wrong(case.teacher.process)), 20_000)
    assert not verdict.ok and len(verdict.p_values) == (1 if verdict.impossible else 3)


def test_p_values_of_a_true_law_are_uniform_and_impossible_samples_fail():
    law, generator = np.array([0.5, 0.3, 0.15, 0.05, 0.0]), np.random.default_rng(0)
    values = np.array([p_value(generator.multinomial(200, law), law, seed=k) for k in range(200)])
    assert 0.4 < values.mean() < 0.6 and (values < 0.05).mean() < 0.12
    assert not judged(lambda stage: np.array([50, 30, 15, 5, 1]), law).ok
    assert not judged(lambda stage: np.array([90, 5, 3, 2, 0]), law).ok
