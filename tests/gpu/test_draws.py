"""What a sampler's step draws from a prediction is what inversion of its log-probabilities gives, and makes no table beside logits."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from di4c.contracts import Draws, Prediction, Tempering
from di4c.contracts import prediction as predictions
from di4c.draws import categorical
from tests.gpu.cases import moved, with_truth
from tests.gpu.test_sums import sized
from tests.mixture.mixture_cases import Case, opaque, system

CASES = {
    "shared bias": Case(components=1, batch=3, positions=40, states=5000, width=64, visible=0.3),
    "no bias, all states": Case(components=1, batch=3, positions=40, states=700, width=64, bias="none", subs=False),
    "bias a position": Case(components=1, batch=3, positions=40, states=700, width=64, bias="per position"),
    "padded bias, modulated": Case(components=1, batch=3, positions=40, states=700, width=64, bias="padded", modulated=True),
    "nothing to draw": Case(components=1, states=70, width=8, visible=1.0),
}  # fmt: skip


class Tables(TorchDispatchMode):
    """Notes the operations that write a tensor of at least so many elements."""

    def __init__(self, elements: int):
        super().__init__()
        self.elements, self.found = elements, []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        name = function._schema.name.removeprefix("aten::")
        writes = isinstance(result, torch.Tensor) and not function.is_view and name != "empty"
        if writes and result.numel() >= self.elements:
            self.found.append(name)
        return result


def inverted(prediction: Prediction, uniform: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The same draws by the dense log-probabilities."""
    drawn = categorical(prediction.log_p0().exp(), uniform)
    return torch.where(prediction.active() & where, drawn, prediction.x_t)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_draws_are_those_of_the_log_probabilities(name, dtype, device, monkeypatch):
    """At some of the positions, in chunks of a row, of a few and of all; the same tokens on a CPU, on a GPU but for rounding.

    Of narrow numbers a GPU makes float32 logits, and so the draws of exact products; log-probabilities there are of rounded logits.
    """
    case = sized(CASES[name], device)
    made, truth = (x.prediction for x in with_truth(case, dtype, device))
    exact = device == "cuda" and dtype == torch.bfloat16
    if exact and case.modulated:
        pytest.skip("modulated features are themselves rounded")
    draws, positions = Draws(0, count=case.batch, device=device), case.positions
    uniform, where = draws.uniform(positions), draws.uniform(positions) < 0.7
    for prediction, source in (
        (made, truth if exact else made),
        (made.without(1), (truth if exact else made).without(1)),
    ):
        wanted = inverted(source, uniform, where)
        for budget in (1, 20 * case.states, 10**9):
            monkeypatch.setattr(predictions, "chunk_budget", lambda device, budget=budget: budget)
            found = prediction.draw(uniform, where)
            assert float((found != wanted).float().mean()) <= (0.02 if device == "cuda" else 0.0)
    assert not ((found == 1) & where & made.active()).any()


def test_tempered_averaged_and_opaque_predictions_are_drawn_by_their_log_probabilities(device):
    case = sized(Case(components=3, batch=3, positions=40, states=700, width=64, weighted=True), device)
    mixture = moved(system(case, torch.float64), device)
    uniform = Draws(0, count=3, device=device).uniform(case.positions)
    everywhere = torch.ones_like(mixture.prediction.x_t, dtype=torch.bool)
    one = moved(system(replace(case, components=1), torch.float64), device)
    for prediction in (
        mixture.prediction.average(),
        one.prediction.tempered(Tempering(0.7, 0.9)),
        opaque(one).prediction,
    ):
        assert torch.equal(prediction.draw(uniform), inverted(prediction, uniform, everywhere))


def test_a_draw_makes_the_logits_and_no_other_table_on_a_gpu(device):
    """By a GPU's kernels; on the CPU there is a softmax besides."""
    case = Case(components=1, batch=2, positions=64, states=3000, width=32, visible=0.0)
    made = moved(system(case, torch.float32), device).prediction
    uniform = Draws(0, count=2, device=device).uniform(64)
    with Tables(made.x_t.numel() * case.states) as tables:
        made.draw(uniform)
    assert tables.found == (["mm"] if device == "cuda" else ["addmm", "_softmax"])


def test_the_output_head_is_called_once(device):
    """However many chunks there are, and where no position is uncertain: ranks that share its weights call it equally often."""
    for visible in (0.0, 1.0):
        case = Case(components=1, batch=2, positions=6, states=9, width=4, visible=visible)
        made = moved(system(case, torch.float32), device).prediction
        calls: list[int] = []
        made.output_head.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        made.draw(Draws(0, count=2, device=device).uniform(6))
        assert len(calls) == 1


@pytest.mark.parametrize("bias", ["shared", "per position", "padded"])
def test_autocast_narrows_no_bias_of_a_position(bias, device):
    """The output head adds it to what its product gives; in bfloat16 a bias of 20 would move by up to 0.06."""
    case = Case(components=1, batch=3, positions=40, states=70, width=16, bias=bias, visible=0.0)
    made = moved(system(case, torch.float32), device).prediction
    with torch.no_grad():
        made.output_head.bias.add_(20)
    uniform = Draws(0, count=3, device=device).uniform(case.positions)
    everywhere = torch.ones_like(made.x_t, dtype=torch.bool)
    with torch.autocast(device, torch.bfloat16), torch.no_grad():
        wanted = inverted(made, uniform, everywhere)
        differ = float((made.draw(uniform) != wanted).float().mean())
    assert differ <= (0.02 if device == "cuda" else 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_excluded_state_is_not_drawn_however_low_the_others_are(dtype, device):
    """Another state has 3 million less than 0; the mask, which is excluded, has 0."""
    case = Case(components=1, batch=2, positions=3, states=4, width=2, visible=0.0)
    made = moved(system(case, dtype), device).prediction
    with torch.no_grad():
        made.output_head.weight.zero_()
        made.output_head.bias.fill_(-3e6)[..., -1] = 0.0
    found = made.draw(Draws(0, count=2, device=device).uniform(3))
    assert (made.x_t == 3).all() and (found < 3).all() and len(found.unique()) == 3


def test_uniforms_of_another_shape_are_refused(device):
    made = moved(system(Case(components=1, batch=2, positions=6), torch.float32), device).prediction
    for shape in ((2, 7), (3, 6), (12,)):
        with pytest.raises(AssertionError, match="a uniform for every position"):
            made.draw(torch.rand(shape, dtype=torch.float64, device=device))
