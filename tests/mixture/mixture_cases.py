"""Random mixtures with an affine output head, as this project and as the plain oracle see them."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from di4c.contracts import AffineOutputHead, Draws, Modulation, Prediction, Raw
from di4c.mixture.marginals import Marginals
from di4c.mixture.reference import dense_log_probs, dense_logits, dense_sums
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import draw_target
from di4c_plugins.parameterisations.subs import Subs

SUMS = frozenset({"joint", "marginal", "kl", "componentwise_kl"})
POINTWISE_BIAS = ("none", "shared", "per position", "padded")


class PositionBias(nn.Module):
    """h·Wᵀ + b_d with rows and positions to spare, as a tied output head has them."""

    affine = True

    def __init__(self, weight: Tensor, bias: Tensor, num_states: int):
        super().__init__()
        self.weight, self.bias, self.num_states = nn.Parameter(weight), nn.Parameter(bias), num_states

    def forward(self, h, positions=None, x_t=None, *, reduction=None):
        if reduction is not None:
            return reduction(h, self.weight, self.bias)
        states = slice(0, self.num_states)
        return h @ self.weight[states].T + self.bias[positions, None, states]


class Opaque(nn.Module):
    """The same output head, not saying that it is affine: the generic path."""

    def __init__(self, readout: nn.Module):
        super().__init__()
        self.readout = readout

    def forward(self, h, positions, x_t):
        return self.readout(h, positions, x_t)


class Gain(nn.Module):
    """A modulation h_m = h ∘ (1 + A·code_m)."""

    def __init__(self, width: int, code: int):
        super().__init__()
        self.map = nn.Linear(code, width)

    def forward(self, h: Tensor, code: Tensor, positions: Tensor) -> Tensor:
        return h[:, None] * (1 + self.map(code))


@dataclass
class Case:
    """Shapes and options of one random mixture."""

    batch: int = 2
    components: int = 3
    samples: int = 2
    positions: int = 4
    states: int = 5
    width: int = 3
    bias: str = "shared"
    subs: bool = True
    modulated: bool = False
    weighted: bool = False
    scale: float = 1.0
    visible: float = 0.5
    sharp_target: bool = False
    chunk_bytes: int = 1
    seed: int = 0


cases = st.builds(
    Case,
    batch=st.integers(1, 3),
    components=st.integers(1, 5),
    samples=st.integers(1, 4),
    positions=st.integers(1, 6),
    states=st.integers(2, 7),
    width=st.integers(1, 5),
    bias=st.sampled_from(POINTWISE_BIAS),
    subs=st.booleans(),
    modulated=st.booleans(),
    weighted=st.booleans(),
    scale=st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    visible=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    sharp_target=st.booleans(),
    chunk_bytes=st.sampled_from([1, 100, 1000, 10**6]),
    seed=st.integers(0, 10**6),
)


def system(case: Case, dtype: torch.dtype) -> SimpleNamespace:
    """Features, readout, x_t, samples and targets of a case; the same numbers for every dtype (rounded from float32)."""
    g = torch.Generator().manual_seed(case.seed)
    normal = lambda *shape: torch.randn(*shape, generator=g).to(dtype)
    mask = case.states - 1
    data_states = mask if case.subs else case.states
    x_0 = torch.randint(data_states, (case.batch, case.positions), generator=g)
    visible = torch.rand(case.batch, case.positions, generator=g) < case.visible
    x_t = torch.where(visible, x_0, mask) if case.subs else x_0
    parameterisation = Subs(SimpleNamespace(mask_index=mask)) if case.subs else Raw()
    stacked = 1 if case.modulated else case.components
    features = (normal(case.batch * stacked, case.positions, case.width) * case.scale).requires_grad_()
    readout = _readout(case, normal, dtype)
    modulation = None
    if case.modulated:
        gain = Gain(case.width, 2).to(dtype)
        for parameter in gain.parameters():
            parameter.data = normal(*parameter.shape)
        modulation = Modulation(gain, normal(case.batch, case.components, 2).requires_grad_())
    x = torch.randint(data_states, (case.batch, case.samples, case.positions), generator=g)
    q = torch.randn(case.batch, case.positions, case.states, generator=g).double() * (40 if case.sharp_target else 1)
    q = torch.where(torch.arange(case.states) < data_states, q, -torch.inf).softmax(-1)
    log_weights = torch.rand(case.components, generator=g).double().log_softmax(0) if case.weighted else None
    prediction = Prediction(
        features, x_t, readout, parameterisation, case.states, case.components, modulation, log_weights
    )
    return SimpleNamespace(
        prediction=prediction,
        x=torch.where(visible[:, None] & case.subs, x_0[:, None], x),
        q=q,
        case=case,
        parameters=[
            features,
            *readout.parameters(),
            *([*modulation.module.parameters(), modulation.code] if modulation else []),
        ],
    )


def _readout(case: Case, normal, dtype: torch.dtype) -> nn.Module:
    if case.bias in ("per position", "padded"):
        extra = 2 if case.bias == "padded" else 0
        weight, bias = normal(case.states + extra, case.width), normal(case.positions + extra, case.states + extra)
        return PositionBias(weight, bias, case.states)
    readout = AffineOutputHead(case.width, case.states, bias=case.bias == "shared").to(dtype)
    for parameter in readout.parameters():
        parameter.data = normal(*parameter.shape)
    return readout


def opaque(made: SimpleNamespace) -> SimpleNamespace:
    """The same system through the generic path."""
    return SimpleNamespace(
        **{**vars(made), "prediction": replace(made.prediction, output_head=Opaque(made.prediction.output_head))}
    )


def target_of(q: Tensor, x_t: Tensor) -> Prediction:
    """A one-component prediction with probabilities q [B, D, S] (zeros too) at every position."""
    return Prediction.from_logits(q.log().clamp_min(-1e6), x_t)


def project_sums(made: SimpleNamespace, needs: frozenset = SUMS) -> dict[str, Tensor]:
    """The sums as this project computes them, in two queries so that sharing is tried too."""
    target, x_t = target_of(made.q, made.prediction.x_t), made.prediction.x_t
    assert target.x_t is x_t
    first, second = needs & {"joint", "marginal", "kl"}, needs & {"componentwise_kl"}
    queries = [Query(first, made.x, target), Query(second, None, target)]
    found = statistics(made.prediction, queries, chunk_bytes=made.case.chunk_bytes)
    return {name: getattr(part, name) for part, wanted in zip(found, (first, second), strict=True) for name in wanted}


def oracle_sums(made: SimpleNamespace) -> dict[str, Tensor]:
    """The same sums by the plain oracle."""
    prediction, case = made.prediction, made.case
    features = prediction.features
    if prediction.modulation is not None:
        gain = 1 + prediction.modulation.module.map(prediction.modulation.code)  # [B, M, H]
        features = (features[:, None] * gain[:, :, None]).flatten(0, 1)
    weight, bias = prediction.output_head.weight[: case.states], prediction.output_head.bias
    if bias is not None:
        bias = bias[: case.states] if bias.dim() == 1 else bias[: case.positions, : case.states]
    logits = dense_logits(features, weight, bias, case.components)
    log_p = dense_log_probs(logits, prediction.x_t, case.states - 1 if case.subs else None)
    log_weights = prediction.log_weights
    if log_weights is None:
        log_weights = torch.full((case.components,), 1 / case.components, dtype=torch.float64).log()
    return dense_sums(log_p, prediction.active(), log_weights, made.x, made.q)


def gradients(made: SimpleNamespace, sums: dict[str, Tensor], seed: int = 0) -> list[Tensor]:
    """Gradients of a random linear combination of the sums, with the joint through a log-sum-exp as the losses take it."""
    g = torch.Generator().manual_seed(seed)
    total = 0.0
    for name in sorted(sums):
        value = sums[name].logsumexp(-1) if name == "joint" else sums[name]
        total = total + (value * (0.5 + torch.rand(value.shape, generator=g)).to(value)).sum()
    found = torch.autograd.grad(total, made.parameters, allow_unused=True)
    return [torch.zeros_like(p) if f is None else f for p, f in zip(made.parameters, found, strict=True)]


def drawn_with_marginals(target: Prediction, draws: Draws, **options) -> tuple[Tensor, Marginals]:
    """The samples and the marginals of `draw_target`."""
    found = draw_target(target, draws, **options)
    return found.samples, found.marginals


def underflowing(dtype: torch.dtype) -> SimpleNamespace:
    """A mixture without probability, in every component, at states where the target has mass: p̄ underflows."""
    made = system(
        Case(batch=1, components=3, positions=2, states=4, width=2, bias="shared", subs=False, visible=0.0), dtype
    )
    made.prediction.output_head.bias.data[:2] = torch.tensor([-80.0, -90.0])
    return made


def certain(dtype: torch.dtype) -> SimpleNamespace:
    """Components and targets with probabilities of exactly 0 and 1, from logits of 5000."""
    made = system(Case(batch=1, components=2, positions=3, states=3, width=3, bias="none", subs=False), dtype)
    made.prediction.output_head.weight.data = torch.eye(3, dtype=dtype) * 5000
    made.prediction.features.data = torch.eye(3, dtype=dtype).expand(2, 3, 3).clone()
    made.q[:], made.x[:] = torch.eye(3), torch.arange(3)
    return made
