"""Distribution matching under the trainer's contract: what it trains and when, ranks, options, weights over the steps."""

import math

import pytest
import torch

from di4c.contracts import Batch, Draws
from di4c.errors import SpecError
from di4c.losses.terms import DataTerm, Gate, MarginalTerm
from di4c_plugins.estimators.monte_carlo import MonteCarlo
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.metrics.entropy import position_entropy
from di4c_plugins.objectives.distribution_matching import DistributionMatching
from di4c_plugins.objectives.matching_options import Critic, Matching, OnPolicy, Ramp
from di4c_plugins.processes.absorbing import Absorbing
from di4c_plugins.samplers.ancestral import Ancestral
from di4c_plugins.times.samplers import UniformTime
from tests.systems import tiny_student, tiny_teacher

DATA = DataTerm(1.0, MonteCarlo(), Gate("constant", 1.0))


BRIDGE = Matching("bridge")


def make(matching=BRIDGE, *, critic_is_teacher=False, **options) -> DistributionMatching:
    teacher, latent = tiny_teacher(num_classes=None), Categorical(atoms=3)
    settings = {"latent": latent, "sampler": Ancestral(teacher.process), "components": 3, "time": UniformTime()}
    objective = DistributionMatching(
        teacher, tiny_student(teacher, "readout", latent.dim), matching=matching, **settings | options
    )
    if not critic_is_teacher:
        torch.manual_seed(5)
        for parameter in objective.critic.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return objective


def batch(count: int = 6) -> Batch:
    return Batch(Draws(9, count=count).integers(5, 6))


POLICIES = [None, OnPolicy("student", 3, 0.5), OnPolicy("teacher", 3)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("x_s", ["bridge", "fresh"])
def test_losses_do_not_depend_on_ranks(x_s, policy):
    objective, whole = make(Matching(x_s, renoised=2, on_policy=policy), data=DATA), batch()
    together = objective(whole, Draws(0, count=6), 0)
    assert {"loss", "matching", "critic", "data"} <= together.keys() and together["matching"].abs().max() > 0
    for a, b in [(0, 2), (2, 6)]:
        part = objective(Batch(whole.x_0[a:b]), Draws(0, first=a, count=b - a), 0)
        for name, value in part.items():
            torch.testing.assert_close(value, together[name][a:b], rtol=1e-4, atol=1e-4)


def gradients(objective, loss) -> dict[str, torch.Tensor]:
    names, parameters = zip(*objective.named_parameters(), strict=True)
    found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    return {name: 0 * p if g is None else g for name, p, g in zip(names, parameters, found, strict=True)}


def test_each_loss_trains_its_own_network():
    objective = make()
    parts = objective(batch(), Draws(0, count=6), 0)
    for part, own in (("matching", "model."), ("critic", "critic.")):
        moved = gradients(objective, parts[part])
        assert all(g.abs().max() == 0 for name, g in moved.items() if not name.startswith(own)), part
        assert sum(g.abs().sum() for name, g in moved.items() if name.startswith(own)) > 0, part
        parts = objective(batch(), Draws(0, count=6), 0)
    assert objective.apart("critic.tokens.weight") and not objective.apart("model.backbone.tokens.weight")


def test_the_student_rests_while_the_critic_is_trained_alone():
    objective = make(data=DATA, critic=Critic(warmup=2, updates=3))
    assert [objective.rests(step) for step in range(9)] == [True, True, False, True, True, False, True, True, False]
    resting = objective(batch(), Draws(0, count=6), 0)
    moved = gradients(objective, resting["loss"])
    assert "data" not in resting and resting["critic"].sum() > 0
    assert all(g.abs().max() == 0 for name, g in moved.items() if name.startswith("model."))
    awake = objective(batch(), Draws(0, count=6), 2)
    torch.testing.assert_close(awake["loss"], awake["critic"] + awake["matching"] + awake["data"])


def test_ramps_move_the_weights_of_the_terms():
    ramps = {"data": Ramp(1.0, 0.0, steps=10, start=2), "matching": Ramp(0.0, 2.0, steps=4)}
    assert [ramps["data"](step) for step in (0, 2, 7, 30)] == [1.0, 1.0, 0.5, 0.0]
    objective, plain = make(data=DATA, ramps=ramps), make(data=DATA)
    changed, found = (o(batch(), Draws(0, count=6), 7) for o in (objective, plain))
    torch.testing.assert_close(changed["data"], 0.5 * found["data"])
    torch.testing.assert_close(changed["matching"], 2.0 * found["matching"])
    torch.testing.assert_close(changed["loss"], changed["data"] + changed["matching"] + changed["critic"])


def test_a_critic_that_is_the_teacher_rewards_nothing():
    found = make(critic_is_teacher=True)(batch(), Draws(0, count=6), 0)
    assert found["matching"].abs().max() < 1e-4 and found["critic"].sum() > 0


def test_matching_stands_alone_or_beside_a_marginal_term():
    assert set(make()(batch(), Draws(0, count=6), 0)) == {"loss", "matching", "critic"}
    found = make(marginal=MarginalTerm(0.5))(batch(), Draws(0, count=6), 0)
    assert found["marginal"].sum() > 0


def test_chunks_change_nothing():
    whole, chunked = (make(chunk_bytes=size)(batch(), Draws(0, count=6), 0) for size in (None, 64))
    torch.testing.assert_close(whole, chunked, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_is_refused():
    with pytest.raises(SpecError, match="no term 'dat'; terms: matching, data"):
        make(ramps={"dat": Ramp(1.0, 0.0, 1)})
    with pytest.raises(SpecError, match="most > 0"):
        Matching("fresh", most=0.0)
    with pytest.raises(SpecError, match="share in"):
        OnPolicy("student", 2, 1.5)


class Unknown(Absorbing.__base__):
    """A process that nobody has a form for."""

    num_states = 6
    prior = corrupt = posterior = posterior_log_prob = None


def test_a_process_without_a_form_is_refused():
    from di4c_plugins.objectives.matching_forms import form_of

    with pytest.raises(SpecError, match="no form for the process Unknown"):
        form_of(Unknown())


def test_diagnostics_tell_of_samples_and_critic():
    objective = make(data=DATA).eval()
    found = objective.diagnostics(batch(), Draws(0, count=6))
    assert {"mutual_information_nats", "critic_nats", "teacher_nats"} <= found.keys()
    assert 0 < found["sample_entropy_nats"] <= math.log(6) and 0 < found["teacher_sample_entropy_nats"] <= math.log(6)
    equal = make(critic_is_teacher=True).eval().diagnostics(batch(), Draws(0, count=6))
    assert equal["critic_nats"] == pytest.approx(equal["teacher_nats"], rel=1e-4)


def test_entropy_is_of_the_tokens_at_a_position():
    assert position_entropy(torch.tensor([[0, 3], [0, 4]]), 5) == pytest.approx(math.log(2) / 2)


def test_a_collapse_and_a_sleeping_lambda_are_told():
    objective = make()
    good = {"sample_entropy_nats": 2.8, "teacher_sample_entropy_nats": 2.9, "critic_nats": 30.0, "teacher_nats": 33.0}
    assert objective.warnings(good, 0.5) == {}
    told = objective.warnings(good | {"sample_entropy_nats": 1.0}, 0.5)["matching-collapse"]
    assert "1.00 nats a position, the teacher's 2.90" in told
    assert "by the critic" in objective.warnings(good | {"critic_nats": 3.0}, 0.1)["matching-collapse"]
    assert "student.start" in objective.warnings(good | {"mixture_collapsed": 1.0}, 0.1)["mixture-collapsed"]
