"""The row functions themselves, in torch operators and by Triton's interpreter: draws by enumeration, means, repeated tokens."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from di4c.contracts import LOG_ZERO
from di4c.kernels import torch_rows
from di4c.kernels.rows import Against, Lines, Logits, RowValues, aligned_width, empty_rows, with_margin
from di4c.mixture.reference import dense_sums

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def triton_rows():
    return importlib.import_module("di4c.kernels.triton_rows")


KERNELS = [pytest.param(lambda: torch_rows, id="torch"), pytest.param(triton_rows, id="triton", marks=needs_triton)]


def logits_of(kernels, z: Tensor, bias: Tensor | None = None, position: Tensor | None = None) -> Logits:
    """z with a bias that is still to be added, where the kernels add it."""
    if bias is None or kernels.ADDS_BIAS:
        return Logits(z.clone(), bias, position)
    return Logits(z + (bias if bias.dim() == 1 else bias[position, None]))


def drawn(kernels, p: Tensor, uniform: Tensor) -> Tensor:
    """The states that p [S] gives for each of the uniforms [K]: [K]."""
    z = p.log().clamp_min(LOG_ZERO).float().expand(len(uniform), 1, -1).contiguous()
    return kernels.row_draw(Logits(z), Lines(torch.ones(1), uniform[:, None]), torch.empty_like(z))[:, 0]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("states", [2, 33, 200])
def test_draws_by_inversion_give_every_state_its_mass(kernels, states):
    """Uniforms just inside and just outside every boundary of the cumulative masses."""
    p = torch.rand(states, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e-3
    p /= p.sum()
    # the masses that the functions see are those of float32 logits
    p = p.log().float().double().softmax(0)
    upper, width, some = p.cumsum(0), p / 100, slice(None, None, 1 + states // 12)
    uniform = torch.cat([(upper - width)[some], (upper - p + width)[some]])
    assert torch.equal(drawn(kernels(), p, uniform), torch.arange(states)[some].repeat(2))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    "excluded",
    [[0], [1024], list(range(1024)), list(range(1, 1025))],
    ids=["first", "a tile of its own", "a tile", "all but one"],
)
def test_states_at_minus_infinity_have_no_mass_whatever_tile_they_fill(kernels, excluded):
    z = torch.randn(3, 1, 1025, generator=torch.Generator().manual_seed(0))
    z[..., excluded] = -torch.inf
    uniform, mean = torch.tensor([[0.0], [0.5], [1 - 2**-53]], dtype=torch.float64), torch.empty(3, 1025)
    found = kernels().row_draw(Logits(z.clone()), Lines(torch.ones(1), uniform), torch.empty_like(z), mean)
    torch.testing.assert_close(mean, z[:, 0].softmax(-1))
    assert (mean[:, excluded] == 0).all() and not any(int(state) in excluded for state in found.flatten())


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_rare_state_is_drawn_and_one_without_mass_never(kernels):
    states = 150
    p = torch.zeros(states, dtype=torch.float64)
    p[[3, 40, 120]] = torch.tensor([1e-9, 0.5, 0.5 - 1e-9], dtype=torch.float64)
    uniform = torch.tensor([0.0, 5e-10, 2e-9, 0.6, 1 - 2.0**-53], dtype=torch.float64)
    assert drawn(kernels(), p, uniform).tolist() == [3, 3, 40, 120, 120]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bias", ["none", "shared", "per position"])
def test_means_and_certain_lines(kernels, bias):
    g = torch.Generator().manual_seed(1)
    rows, each, states = 3, 4, 70
    z = torch.randn(rows, each, states, generator=g)
    b = {"none": None, "shared": torch.randn(states, generator=g), "per position": torch.randn(5, states, generator=g)}[
        bias
    ]
    position, weights = torch.tensor([4, 0, 4]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    certain = torch.tensor([[-1, -1, 7, -1], [69, 69, 69, 69], [-1, -1, -1, -1]])
    module, mean = kernels(), torch.empty(rows, states)
    uniform = torch.rand(rows, each, generator=g, dtype=torch.float64)
    found = module.row_draw(
        logits_of(module, z, b, position), Lines(weights, uniform, certain), torch.empty_like(z), mean
    )
    p = (z if b is None else z + (b if b.dim() == 1 else b[position, None])).softmax(-1)
    p = torch.where((certain >= 0)[..., None], torch.nn.functional.one_hot(certain.clamp_min(0), states).float(), p)
    torch.testing.assert_close(mean, torch.einsum("c,pcs->ps", weights, p), rtol=1e-5, atol=1e-7)
    assert torch.equal(found[certain >= 0], certain[certain >= 0])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("components", "samples", "states"), [(2, 6, 40), (1, 1, 2), pytest.param(256, 2, 6, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("equal", [False, True])
def test_values_and_gradients_with_tokens_that_repeat(kernels, components, samples, states, equal):
    """All N tokens of a row equal, too: each adds its gradient."""
    g = torch.Generator().manual_seed(2)
    rows, module = 2, kernels()
    z = torch.randn(rows, components, states, generator=g)
    q = [torch.randn(rows, states, generator=g).softmax(-1) for _ in range(2)]
    tokens = torch.randint(states, (rows, samples), generator=g)
    tokens = tokens[:, :1].expand(-1, samples).contiguous() if equal else tokens
    against = Against(torch.rand(components, generator=g).log_softmax(0), tokens, q, kl=True, componentwise=True)
    given = RowValues(*(torch.randn(s, generator=g) for s in ((rows, components, samples), (2, rows), (2, rows))))
    found = module.row_values(Logits(z.clone()), against, torch.empty_like(z))
    gradient = module.row_gradient(
        Logits(z.clone()), against, replace(given, kept=found.kept), torch.empty_like(z), z.dtype
    )
    wide = z.double().requires_grad_()
    every, stacked = torch.ones(rows, 1, dtype=torch.bool), torch.stack(q).double()[:, :, None]
    truth = dense_sums(wide.log_softmax(-1)[:, :, None], every, against.log_weights, tokens[..., None], stacked)
    total = (
        (truth["joint"].mT * given.chosen).sum()
        + (truth["kl"] * given.kl).sum()
        + (truth["componentwise_kl"] * given.componentwise).sum()
    )
    (expected,) = torch.autograd.grad(total, wide)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.chosen.double(), truth["joint"].mT, **close)
    torch.testing.assert_close(found.kl.double(), truth["kl"], **close)
    torch.testing.assert_close(found.componentwise.double(), truth["componentwise_kl"], **close)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("bias", [None, "shared", "per position"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_lines_may_share_a_row(kernels, bias, dtype):
    """As if the row stood there once for each line: their tokens are scored at it, and their gradients added up."""
    g = torch.Generator().manual_seed(3)
    row, rows, states, module = torch.tensor([0, 0, 0, 0, 0, 1, 3]), 4, 21, kernels()
    added = {
        None: None,
        "shared": torch.randn(states, generator=g),
        "per position": torch.randn(2, states, generator=g),
    }[bias]
    if added is not None and not module.ADDS_BIAS:
        pytest.skip("the bias is in the logits")
    z, tokens = torch.randn(rows, 3, states, generator=g), torch.randint(states, (len(row), 2), generator=g)
    q, log_weights = torch.randn(rows, states, generator=g).softmax(-1), torch.rand(3, generator=g).log_softmax(0)
    position = torch.tensor([0, 1, 1, 0])
    given = RowValues(torch.randn(len(row), 3, 2, generator=g), *(torch.randn(1, rows, generator=g) for _ in range(2)))
    against = Against(log_weights, tokens, [q], kl=True, componentwise=True, row=row)
    make = lambda: Logits(z.clone(), added, None if added is None else position)
    found = module.row_values(make(), against, torch.empty_like(z))
    gradient = module.row_gradient(make(), against, replace(given, kept=found.kept), torch.empty_like(z), dtype)
    wide = z.double() + (0 if added is None else added.expand(2, -1)[position][:, None].double())
    log_p = wide.requires_grad_().log_softmax(-1)
    every = torch.ones(rows, 1, dtype=torch.bool)
    truth = dense_sums(
        log_p[:, :, None], every, log_weights, None, q.double()[None, :, None], frozenset({"kl", "componentwise_kl"})
    )
    chosen = log_p[row].gather(-1, tokens[:, None].expand(-1, 3, -1))
    total = (chosen * given.chosen).sum() + (truth["kl"] * given.kl).sum()
    total = total + (truth["componentwise_kl"] * given.componentwise).sum()
    (expected,) = torch.autograd.grad(total, wide)
    torch.testing.assert_close(found.chosen.double(), chosen, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.kl.double(), truth["kl"], rtol=1e-5, atol=1e-5)
    narrow = 1e-2 if dtype == torch.bfloat16 and gradient.dtype == dtype else 1e-5
    assert (gradient - expected).norm() <= narrow * expected.norm()


@pytest.fixture
def poisoned():
    """Memory that nothing has written to is filled with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@needs_triton
@pytest.mark.parametrize("states", [28, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("row", [None, [0, 0, 1, 2, 2]])
def test_a_gradient_has_zeros_behind_its_states(states, dtype, row, poisoned):
    """Products take them along, whether lines of tokens share rows or not."""
    g, module = torch.Generator().manual_seed(5), triton_rows()
    z = empty_rows(3 * 4, states, torch.float32, torch.device("cpu")).copy_(torch.randn(12, states, generator=g))
    lines = 3 if row is None else len(row)
    tokens = torch.randint(states, (lines, 2), generator=g)
    against = Against(torch.zeros(4), tokens, row=None if row is None else torch.tensor(row))
    logits = Logits(z.view(3, 4, states))
    given = RowValues(torch.randn(lines, 4, 2, generator=g), kept=module.row_values(logits, against).kept)
    gradient = module.row_gradient(logits, against, given, None, dtype)
    whole = with_margin(gradient.flatten(0, 1))
    assert whole.shape == (12, aligned_width(states)) and whole.dtype == dtype
    assert whole[:, :states].isfinite().all() and not whole[:, states:].any()


@needs_triton
@pytest.mark.parametrize("bias", [None, "shared", "per position"])
@pytest.mark.parametrize("divergences", [True, False])
def test_what_lies_between_rows_counts_for_nothing(bias, divergences):
    """Rows that begin further apart than they are long, with no numbers between them: the same bits as end to end."""
    g, module = torch.Generator().manual_seed(4), triton_rows()
    rows, components, states = 3, 4, 130
    z = torch.randn(rows, components, states, generator=g)
    apart = empty_rows(rows * components, states, z.dtype, z.device)
    apart._base.fill_(torch.nan)
    apart = apart.copy_(z.flatten(0, 1)).view(z.shape)
    assert apart.stride() == (4 * 192, 192, 1)
    added = {
        None: None,
        "shared": torch.randn(states, generator=g),
        "per position": torch.randn(5, states, generator=g),
    }[bias]
    tokens, uniform = torch.randint(states, (rows, 5), generator=g), torch.rand(rows, 4, generator=g).double()
    q = [torch.randn(rows, states, generator=g).softmax(-1)] if divergences else []
    against = Against(torch.rand(4, generator=g).log_softmax(0), tokens, q, kl=divergences, componentwise=divergences)
    given = [torch.randn(rows, components, 5, generator=g)]
    given += [torch.randn(1, rows, generator=g) if divergences else None for _ in range(2)]
    found = []
    for each in (z, apart):
        logits, mean = Logits(each, added, torch.tensor([4, 0, 2])), torch.empty(rows, states)
        values = module.row_values(logits, against)
        gradient = module.row_gradient(logits, against, RowValues(*given, values.kept), None, torch.bfloat16)
        drawn = module.row_draw(logits, Lines(against.log_weights.exp(), uniform), mean=mean)
        found.append([values.chosen, values.kl, values.componentwise, gradient, drawn, mean])
    assert found[1][3].stride() == apart.stride()
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_chunk_may_have_no_row(kernels):
    """Where no position of a step is open."""
    module, z, mean = kernels(), torch.empty(0, 2, 33), torch.empty(0, 33)
    drawn = module.row_draw(
        Logits(z), Lines(torch.ones(2) / 2, torch.empty(0, 2, dtype=torch.float64)), torch.empty_like(z), mean
    )
    assert drawn.shape == (0, 2) and drawn.dtype == torch.int64
    found = module.row_values(
        Logits(z), Against(torch.zeros(2), torch.empty(0, 3, dtype=torch.int64), [mean], kl=True), torch.empty_like(z)
    )
    assert found.chosen.shape == (0, 2, 3) and found.kl.shape == (1, 0)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("states", [33, 200])
def test_what_is_not_a_number_shows_in_the_values(kernels, states):
    """One logit of many, or one probability of a target: a loss that stayed finite would train on."""
    module, z, q = kernels(), torch.zeros(2, 1, states), torch.full((2, states), 1 / states)
    z[0, 0, 5] = q[1, 7] = torch.nan
    against = Against(torch.zeros(1), torch.tensor([[3], [3]]), [q], kl=True, componentwise=True)
    found = module.row_values(Logits(z), against, torch.empty_like(z))
    assert found.chosen.isnan().flatten().tolist() == [True, False]
    assert found.kl.isnan().all() and found.componentwise.isnan().all()


@needs_triton
@pytest.mark.parametrize(("rows", "states"), [(1, 50258), (41, 50258), (512, 50258), (10, 130_000), (512, 1025)])
def test_sweeps_fill_the_card(rows, states):
    """Two programs a multiprocessor of an H100 at least, whatever the number of components: it is no axis of a sweep's grid."""
    assert rows * -(-states // triton_rows().tile_for(rows, states, 132)) >= 2 * 132


@needs_triton
def test_kernels_compile_for_an_h100_without_spilling():
    worker = Path(__file__).parent / "compile_for_gpu.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(worker), "1", "16", "64", "256"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 4 * 7 and not [each for each in found if each["spilled"]]
    sweeps = {"normalisers", "divergences", "gradient", "masses", "means"}
    assert all(each["wide_loads"] for each in found if each["kernel"] in sweeps)
