"""Passes replayed as CUDA graphs: the numbers of those that are not, the memory that they hold, and a network that cannot be recorded."""

import gc
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from di4c.contracts import Context, Draws
from di4c.engine.graphs import held_bytes, replay_backbones
from di4c.mixture.student import mixture_denoiser
from di4c_plugins.backbones.dit import DiT
from di4c_plugins.backbones.maskgit import MaskGITBackbone
from di4c_plugins.backbones.mdlm_dit import MdlmDiT
from di4c_plugins.backbones.tauldr_unet import TauLDRUNet
from di4c_plugins.latents.unit_cube import Uniform
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from tests.gpu.cases import HEADS, stirred, text_student, text_teacher

POSITIONS, STATES, CLASSES, WIDTH, COMPONENTS = 16, 40, 3, 32, 3
SIZES = {"width": WIDTH, "depth": 4, "heads": 2}
NETWORKS = {
    "text": lambda: MdlmDiT(POSITIONS, STATES, conditioning_width=8, time_conditioning=True, **SIZES),
    "dit": lambda: DiT(POSITIONS, STATES, num_classes=CLASSES, grid=[4, 4], **SIZES),
    "maskgit": lambda: MaskGITBackbone(POSITIONS, STATES, num_classes=CLASSES, mlp_width=32, **SIZES),
    "unet": lambda: TauLDRUNet(
        POSITIONS, STATES, num_classes=CLASSES, shape=[1, 4, 4], channels=8, multipliers=[1, 2], res_blocks=1, attention_at=1,
        dropout=0.1, lam_embed_dim=8,
    ),
}  # fmt: skip
EXACT = ("text", "dit")


@pytest.fixture
def told() -> Iterator[None]:
    """What replaying warns of is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CUDA graph")
        yield


def contexts(backbone, x_t: torch.Tensor, t: torch.Tensor, cond, dtype: torch.dtype) -> list[Context | None]:
    """None; λ in the last block, whole, its trunk alone, and a group of components that goes on from there."""
    rows = COMPONENTS * len(x_t)
    given = {"tokens": (rows, 2, WIDTH)} if "tokens" in backbone.accepts else {}
    given |= {"embedding": (rows, backbone.embedding_width)} if "embedding" in backbone.accepts else {}
    made = {name: torch.randn(shape, device=x_t.device, dtype=dtype) for name, shape in given.items()}
    late = Context(COMPONENTS, start=backbone.depth - 1, **made)
    trunk_alone = replace(late, only_trunk=True)
    trunk = type(backbone).forward(backbone, x_t, t, cond, trunk_alone)
    return [None, late, trunk_alone, late.split(2, trunk)[0]]


def same(ours, theirs, exact: bool) -> bool:
    pairs = zip(*(x if isinstance(x, tuple) else (x,) for x in (ours, theirs)), strict=True)
    return all(torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_replayed_pass_is_the_pass(name, dtype, device, told):
    """Bit for bit for transformers of text and DiT; with other inputs, and after a change of the weights where they lie."""
    torch.manual_seed(0)
    backbone = stirred(NETWORKS[name](), std=0.05).to(device, dtype).eval()
    forward, exact = type(backbone).forward, name in EXACT
    x_t, t = torch.randint(STATES, (2, POSITIONS), device=device), torch.rand(2, device=device)
    cond = None if name == "text" else torch.tensor([1, -1], device=device)
    assert replay_backbones(backbone) == 1
    for context in contexts(backbone, x_t, t, cond, dtype):
        for turn in range(4):
            given = (x_t.roll(turn, 1), t / (1 + turn), cond, context)
            with torch.inference_mode(turn in (1, 2)), torch.no_grad():
                assert same(backbone(*given), forward(backbone, *given), exact), (context, turn)
    if device == "cuda":
        assert len(backbone.forward.graphs) == 4
    for parameter in backbone.parameters():
        parameter.mul_(0.5)
    assert same(backbone(x_t, t, cond), forward(backbone, x_t, t, cond), exact)
    if device == "cuda":
        assert len(backbone.forward.graphs) == 4


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_samples_with_and_without_graphs_are_equal(head, device, told):
    def sampled(replayed: bool) -> torch.Tensor:
        teacher = text_teacher(POSITIONS, STATES)
        student, draws = text_student(teacher, head).to(device).eval(), Draws(0, count=16, device=device)
        assert replay_backbones(*([student] if replayed else [])) == replayed
        denoiser = mixture_denoiser(student, Uniform(), draws.child("lambda"))
        start = teacher.process.prior(POSITIONS, draws)
        found = MdlmAncestral(teacher.process).sample(denoiser, start, 6, None, draws.child("x"))
        assert not (replayed and device == "cuda") or student.backbone.forward.graphs
        return found

    assert torch.equal(sampled(True), sampled(False))


@torch.no_grad()
def test_what_graphs_hold_is_counted_and_goes_with_the_network(device, told):
    if device == "cpu":
        pytest.skip("there are no graphs")

    def held() -> int:
        gc.collect(), torch.cuda.empty_cache()
        return held_bytes()

    before = held()
    backbone = NETWORKS["text"]().to(device).eval()
    replay_backbones(backbone)
    x_t, t = torch.zeros(4, POSITIONS, dtype=torch.int64, device=device), torch.rand(4, device=device)
    for _ in range(3):
        backbone(x_t, t)
    assert backbone.forward.graphs and held() > before
    del backbone
    assert held() <= before


UNRECORDABLE = """
import warnings, torch
from di4c.engine.graphs import replay_backbones
from tests.gpu.test_replays import NETWORKS, POSITIONS

class Waits(type(NETWORKS["text"]())):
    def forward(self, x_t, t, cond=None, context=None):
        return super().forward(x_t, t, cond, context) * (1.0 + float(t.sum().item() > 1e9))

torch.set_grad_enabled(False)
x_t, t = torch.zeros(2, POSITIONS, dtype=torch.int64, device="cuda"), torch.rand(2, device="cuda")
good = NETWORKS["text"]().cuda().eval()
bad = Waits(POSITIONS, 40, width=32, depth=4, heads=2, conditioning_width=8).cuda().eval()
assert replay_backbones(bad, good) == 2
for backbone in (bad, good):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(4):
            assert torch.equal(backbone(x_t, t), type(backbone).forward(backbone, x_t, t))
    assert any("no CUDA graph" in str(one.message) for one in said) == (backbone is bad), said
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
assert not bad.forward.graphs and good.forward.graphs
"""


def test_a_network_that_waits_for_the_device_runs_as_it_is_and_disturbs_no_other(device):
    """In a process of its own: what a recording that fails leaves behind is no other test's."""
    if device == "cpu":
        pytest.skip("there are no graphs")
    done = subprocess.run([sys.executable, "-c", UNRECORDABLE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
