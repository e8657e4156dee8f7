"""The loss under ZeRO-3 on two ranks: the numbers of one process, and one call of the output head a pass whatever the chunks."""

import pytest
import torch

from tests.engine.launching import launch
from tests.losses.zero3_worker import SIZE, batch_of, objective_of

JOBS = [
    {"head": head, "backbone": backbone, "chunk_bytes": chunk_bytes}
    for head, backbone, chunk_bytes in [
        ("token", "dit", 1),
        ("late", "dit", 10**6),
        ("readout", "dit", 100),
        ("token", "maskgit", 100),
        ("readout", "maskgit", 10**6),
    ]
]
JOBS += [JOBS[2] | {"proposal": "gaussian"}, JOBS[1] | {"proposal": "product-categorical"}]
JOBS += [JOBS[k] | {"components_at_a_time": size} for k, size in ((0, 1), (1, 2), (3, 2))]
JOBS += [{"head": "readout", "backbone": "dit", "chunk_bytes": 100, "atoms": 3}]
"""The last: examples share inputs at t = 1, on one rank more of them than on the other."""


@pytest.fixture(scope="module")
def results():
    return launch(JOBS, ranks=2, module="tests.losses.zero3_worker")[0]


@pytest.mark.slow
@pytest.mark.parametrize("k", range(len(JOBS)))
def test_two_ranks_with_partitioned_weights_compute_what_one_process_does(results, k):
    objective, found = objective_of(JOBS[k] | {"components_at_a_time": None}), results[k]
    loss = objective(*batch_of(0, SIZE), 0)["loss"]
    torch.testing.assert_close(torch.tensor(found["losses"]), loss.detach(), rtol=1e-4, atol=1e-4)
    loss.mean().backward()
    for name, parameter in objective.named_parameters():
        expected = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        assert found["gradients"][name] == pytest.approx(expected, rel=1e-3, abs=1e-5), name


@pytest.mark.slow
def test_the_readout_is_called_once_a_pass(results):
    """Once to draw the target, once for all sums: not once a chunk."""
    assert {result["calls"] for result in results} == {2}
