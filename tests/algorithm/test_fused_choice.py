"""Where the fused kernels are used; this needs no Triton."""

from dataclasses import replace

import pytest
import torch
from tests.algorithm.mixture_cases import Case, system

from di4c.algorithm.fused import MOST_COMPONENTS, fused_applies


def test_by_themselves_never_on_a_cpu():
    prediction = system(Case(), torch.float32).prediction
    assert not fused_applies(prediction, None) and not fused_applies(prediction, False)
    assert fused_applies(prediction, True)


@pytest.mark.parametrize("options", [{"dtype": torch.float64}, {"components": MOST_COMPONENTS + 1}])
def test_what_the_kernels_cannot_do_goes_the_other_way(options):
    dtype = options.pop("dtype", torch.float32)
    assert not fused_applies(system(Case(**options), dtype).prediction, True)


def test_more_than_one_excluded_state_goes_the_other_way():
    prediction = system(Case(), torch.float32).prediction
    parameterisation = type("Two", (), {"excluded": (0, 1)})()
    assert not fused_applies(replace(prediction, parameterisation=parameterisation), True)
