"""Self-distillation through time."""

import copy
import math

import pytest
import torch

from di4c.contracts import Batch, Draws
from di4c.errors import SpecError
from di4c.mixture.student import MixtureStudent
from di4c_plugins.heads.none import NoHead
from di4c_plugins.latents.categorical import Categorical
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.objectives.sdtt import DISTANCES, Sdtt
from tests.systems import tiny_teacher

STATES, LENGTH = 5, 6
MASK = STATES


def student_of(teacher) -> MixtureStudent:
    backbone = teacher.student_backbone()
    return MixtureStudent(
        backbone, NoHead(1, backbone), parameterisation=teacher.parameterisation, num_states=teacher.process.num_states
    )


def objective(**options) -> Sdtt:
    teacher = tiny_teacher(LENGTH, STATES, num_classes=None)
    given = {"distance": "kl-fwd", "base_steps": 8, "rounds": 3, "steps_per_round": 10}
    return Sdtt(teacher, student_of(teacher), Categorical(atoms=1), **(given | options))


def batch(n: int = 8) -> Batch:
    return Batch(torch.randint(STATES, (n, LENGTH), generator=torch.Generator().manual_seed(0)))


def distributions() -> tuple[torch.Tensor, torch.Tensor]:
    p = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]], dtype=torch.float64)
    q = torch.tensor([[0.25, 0.75, 0.0], [0.9, 0.1, 0.0]], dtype=torch.float64)
    return p.log().clamp_min(-1e6), q.log().clamp_min(-1e6)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("kl-fwd", 0.25 * math.log(0.5) + 0.75 * math.log(1.5)),
        ("kl-bwd", 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        ("mse", 2 * 0.25**2),
        ("tv", 0.25),
        ("mse-log", (math.log(2) ** 2 + math.log(1.5) ** 2) / 3),
        ("tv-log", math.log(2) + math.log(1.5)),
    ],
)
def test_distances_by_hand(name, by_hand):
    found = DISTANCES[name](*distributions())
    torch.testing.assert_close(found, torch.tensor([by_hand, 0.0], dtype=torch.float64))


def test_targets_are_the_predictions_at_the_step_that_revealed():
    made = objective(substeps=3, rounds=1)
    draws = Draws(0, count=64)
    x_t = torch.full((64, LENGTH), MASK)
    x_t[:, 0] = 2
    t = torch.full((64,), 0.5, dtype=torch.float64)
    predictions, origin = made.gather(x_t, t, None, 0, draws)
    assert len(predictions) == 3
    assert (origin[:, 0] == -1).all() and set(origin[:, 1:].flatten().tolist()) == {0, 1, 2}
    for i, prediction in enumerate(predictions):
        still = prediction.x_t == MASK
        assert still[origin == i].all()  # a position is a mask when its own prediction is made
        assert not still[(origin >= 0) & (origin < i)].any()
    # with δ = 1/8 a position is revealed in each of the first two steps with probability δ/t
    share = (origin[:, 1:] == 0).double().mean().item()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / (64 * 5)) ** 0.5


def test_a_student_that_is_the_teacher_differs_only_where_later_steps_know_more():
    made = objective()
    made.eval()
    draws = Draws(1, count=16)
    x_t, t = torch.full((16, LENGTH), MASK), torch.full((16,), 0.9, dtype=torch.float64)
    predictions, origin = made.gather(x_t, t, None, 0, draws)
    student = made.model.predict(x_t, t, None, made._lam(draws))
    torch.testing.assert_close(made._summed(student, predictions[0], origin == 0), torch.zeros(16), rtol=0, atol=1e-5)
    assert made._summed(student, predictions[1], origin == 1).max() > 1e-3


@pytest.mark.parametrize("distance", sorted(DISTANCES))
@pytest.mark.parametrize("per", ["sequence", "masked-token"])
def test_the_loss_falls_and_only_the_student_learns(distance, per):
    made = objective(distance=distance, per=per)
    teacher_before = copy.deepcopy(made._frozen[0].backbone.state_dict())
    optimizer = torch.optim.Adam(made.model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = made(batch(), Draws(0, count=8, path=("step",)), 0)["loss"]
        assert loss.shape == (8,) and (loss >= -1e-5).all()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.mean().item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(v, teacher_before[k]) for k, v in made._frozen[0].backbone.state_dict().items())
    assert all(p.grad is None for p in made.round_teacher.parameters())


def test_per_masked_token_divides_by_the_masked_positions():
    a, b = objective(), objective(per="masked-token")
    draws = Draws(2, count=8)
    x_t = a._frozen[0].process.corrupt(
        batch().x_0, a.earliest + (1 - a.earliest) * draws.child("t").uniform(), draws.child("x_t")
    )
    masked = (x_t == MASK).sum(1).clamp_min(1)
    torch.testing.assert_close(
        a(batch(), Draws(2, count=8), 0)["loss"] / masked, b(batch(), Draws(2, count=8), 0)["loss"]
    )


def changed(made: Sdtt) -> Sdtt:
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.1)
    return made


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_rounds_double_the_step_and_hand_the_student_over():
    made = changed(objective())
    made(batch(), Draws(0, count=8), 9)
    assert not same(made.round_teacher, made.model)
    assert made.diagnostics(batch(), Draws(0)) == {"round": 0.0, "sampling_steps": 4}
    made(batch(), Draws(0, count=8), 10)
    assert same(made.round_teacher, made.model) and made.step_size(1) == 2 * made.step_size(0)
    at_hand_over = copy.deepcopy(made.round_teacher)
    changed(made)(batch(), Draws(0, count=8), 19)
    assert same(made.round_teacher, at_hand_over)
    made(batch(), Draws(0, count=8), 50)  # beyond the last round: number 2 goes on
    assert made.diagnostics(batch(), Draws(0)) == {"round": 2.0, "sampling_steps": 1}


def test_a_restored_objective_goes_on_with_the_rounds_teacher():
    made = changed(objective())
    made(batch(), Draws(0, count=8), 10)
    changed(made)
    restored = objective()
    restored.load_state_dict(made.state_dict())
    draws = lambda: Draws(3, count=8)
    torch.testing.assert_close(
        made(batch(), draws(), 12)["loss"], restored(batch(), draws(), 12)["loss"], rtol=0, atol=0
    )
    assert same(restored.round_teacher, made.round_teacher) and not same(restored.round_teacher, restored.model)


def test_the_copy_stays_in_evaluation_mode():
    made = objective().train()
    assert made.model.training and not made.round_teacher.training


def test_published_times():
    made = objective(substep_times="published", earliest=1e-3)
    t = torch.tensor([0.5, 0.9, 0.1], dtype=torch.float64)
    first, second = made._times(t, 0.1)
    torch.testing.assert_close(first, t + (1 - t) * (t - 0.2))
    torch.testing.assert_close(second, ((1 - t) * (t - 0.2)).clamp_min(1e-3))


@pytest.mark.parametrize("options", [{"substeps": 1}, {"rounds": 4}, {"steps_per_round": 0}])
def test_rounds_that_cannot_be_are_refused(options):
    with pytest.raises(SpecError, match="base_steps"):
        objective(**options)


def test_a_mixture_is_refused():
    teacher = tiny_teacher(LENGTH, STATES, num_classes=None)
    with pytest.raises(SpecError, match="product student"):
        Sdtt(teacher, student_of(teacher), Uniform(), distance="tv", base_steps=8, rounds=1, steps_per_round=1)
