"""What is done with networks on the device: compiled, sampled from, adapted on a shared base."""

import importlib.util

import pytest
import torch
from torch._dynamo.utils import counters

from di4c.contracts import Draws
from di4c.engine.compiling import compile_backbones
from di4c.engine.shared_base import share_base
from di4c.mixture.student import mixture_denoiser
from di4c_plugins.latents.unit_cube import Sobol, Uniform
from di4c_plugins.samplers.mdlm_ancestral import MdlmAncestral
from tests.gpu.cases import HEADS, text_student, text_teacher

POSITIONS, STATES = 8, 40


def student_on(device: str, head: str = "token", dtype: torch.dtype = torch.float32):
    return text_student(text_teacher(POSITIONS, STATES), head).to(device, dtype).eval()


@pytest.mark.parametrize("head", HEADS)
def test_a_compiled_network_is_the_eager_one_in_one_graph(head, slow_on_cpu):
    """Inductor on a GPU; on a CPU its tracing alone, which is quick."""
    device = slow_on_cpu
    eager, compiled = (student_on(device, head).train() for _ in range(2))
    torch._dynamo.reset(), counters.clear()
    compile_backbones(compiled, backend="inductor" if device == "cuda" else "aot_eager")
    x_t, t = torch.full((2, POSITIONS), STATES - 1, device=device), torch.ones(2, device=device)
    lam = torch.rand(2, 3, 1, generator=torch.Generator().manual_seed(0)).to(device)
    ours, theirs = (student.predict(x_t, t, None, lam).features for student in (compiled, eager))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    ours.square().sum().backward(), theirs.square().sum().backward()
    for (name, p), q in zip(compiled.named_parameters(), eager.parameters(), strict=True):
        if q.grad is not None:
            torch.testing.assert_close(
                p.grad, q.grad, rtol=1e-3, atol=1e-3 * float(q.grad.abs().max()) + 1e-6, msg=name
            )
    assert not counters["graph_break"], dict(counters["graph_break"])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_have_no_mask_and_are_those_of_the_cpu(head, dtype, device, record_property):
    process = text_teacher(POSITIONS, STATES).process

    def sampled(where: str) -> torch.Tensor:
        student, draws = student_on(where, head, dtype), Draws(0, count=64, device=where)
        with torch.no_grad():
            denoiser = mixture_denoiser(student, Uniform(), draws.child("lambda"))
            return (
                MdlmAncestral(process)
                .sample(denoiser, process.prior(POSITIONS, draws), 4, None, draws.child("x"))
                .cpu()
            )

    tokens = sampled(device)
    assert tokens.min() >= 0 and tokens.max() < STATES - 1
    if dtype == torch.float32:
        different = float((tokens != sampled("cpu")).float().mean())
        record_property("differing_tokens", different)
        assert different < 0.02  # a token that differs changes those that are drawn after it


def test_one_step_samples_follow_the_students_marginals(device):
    """Frequencies of the tokens at every position of 20 000 samples, within five standard errors of the law's mean over λ."""
    student, process, size = (
        student_on(device),
        text_teacher(POSITIONS, STATES).process,
        20_000 if device == "cuda" else 4000,
    )
    draws = Draws(0, count=size, device=device)
    with torch.no_grad():
        one = Draws(1, count=1, device=device)
        prediction = student.predict(
            process.prior(POSITIONS, one), torch.ones(1, device=device), None, Sobol().sample(2048, one).to(device)
        )
        p = prediction.average().log_probs(torch.arange(POSITIONS, device=device))[:, 0].exp().double()
        tokens = MdlmAncestral(process).sample(
            mixture_denoiser(student, Uniform(), draws.child("lambda")),
            process.prior(POSITIONS, draws),
            1,
            None,
            draws.child("x"),
        )
    found = torch.stack([torch.bincount(tokens[:, d], minlength=STATES) for d in range(POSITIONS)]).double() / size
    error = (p * (1 - p) / size).sqrt()
    assert ((found - p).abs() < 5 * error + 2e-3).all()


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_adapters_on_a_shared_base_are_those_of_the_cpu(device):
    """The teacher predicts as before whatever its student has learned; gradients reach the adapters alone."""

    def built(where: str):
        teacher = text_teacher(POSITIONS, STATES)
        torch.manual_seed(0)
        backbone = share_base(teacher, rank=2, targets=["attn_qkv", "attn_out"], alpha=4.0)
        return teacher, stirred_adapters(backbone.to(where))

    x_t, t = Draws(0, count=3).integers(STATES, POSITIONS), torch.full((3,), 0.7)
    results = []
    for where in ("cpu", device):
        teacher, backbone = built(where)
        frozen = teacher.predict(x_t.to(where), t.to(where)).features
        backbone(x_t.to(where), t.to(where)).square().mean().backward()
        gradients = {name: p.grad.cpu() for name, p in backbone.named_parameters() if p.grad is not None}
        assert gradients and all("lora_" in name for name in gradients)
        results.append((frozen.cpu(), gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        results[0][0], text_teacher(POSITIONS, STATES).predict(x_t, t).features, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)


def stirred_adapters(backbone):
    """The backbone with adapters that are not zero, the same on every device."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_((0.3 * torch.randn(parameter.shape, generator=generator)).to(parameter))
    return backbone
