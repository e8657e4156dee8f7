"""Which implementation of the row functions is used, and with what budget; this needs no Triton."""

from types import SimpleNamespace

import pytest
import torch

from di4c.kernels import backend, torch_rows


def test_never_the_kernels_on_a_cpu():
    assert backend.kernels_for(torch.zeros(1)) is torch_rows


@pytest.mark.parametrize(("dtype", "there", "applies"), [
    (torch.float32, True, True), (torch.bfloat16, True, True), (torch.float16, True, True), (torch.float64, True, False), (torch.float32, False, False),
])  # fmt: skip
def test_on_cuda_wherever_triton_is_but_for_float64(monkeypatch, dtype, there, applies):
    monkeypatch.setattr(backend, "triton_is_there", lambda: there)
    assert backend.kernels_apply(SimpleNamespace(is_cuda=True, dtype=dtype)) == applies


@pytest.mark.parametrize(("total", "budget"), [(24e9, 256), (39e9, 256), (48e9, 576), (80e9, 576), (141e9, 576)])
def test_the_budget_follows_the_total_memory_of_a_gpu(monkeypatch, total, budget):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=int(total)))
    assert backend.chunk_budget("cuda") == budget * 2**20
    assert backend.chunk_budget("cpu") == 24 * 2**20
