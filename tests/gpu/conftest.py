"""Every test here that takes `device` runs twice: on the GPU, with the marker, and at small size on the CPU."""

from collections.abc import Iterator

import pytest
import torch

ON_GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", ON_GPU])
def device(request) -> Iterator[str]:
    """Where the test computes."""
    yield from without_tf32(request.param)


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), ON_GPU])
def slow_on_cpu(request) -> Iterator[str]:
    """The same for tests that take more than a few seconds on a CPU."""
    yield from without_tf32(request.param)


def without_tf32(device: str) -> Iterator[str]:
    """The device; meanwhile float32 products and convolutions are float32's."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield device
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
