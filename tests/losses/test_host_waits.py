"""Where a step would wait for a GPU: calls whose result the host needs are counted on the CPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from di4c.draws import Draws
from di4c.kernels import torch_rows
from di4c.losses.terms import ConsistencyTerm
from di4c_plugins.latents.unit_cube import Sobol
from tests.losses.test_objective import batch, make

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique")


class Waits(TorchDispatchMode):
    """Counts the calls that tell the host what a device has computed; indices of booleans among them."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        by_mask = name.startswith("aten.index.") and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.number += by_mask or any(part in name for part in WAITING)
        return function(*args, **(kwargs or {}))


def waits(**options) -> int:
    """Of one step, forward and backward."""
    objective = make(**options)
    with Waits() as found:
        objective(batch(), Draws(3, count=6), 0)["loss"].mean().backward()
    return found.number


@pytest.mark.parametrize("options", [
    {"head": "late"}, {"head": "readout"}, {"head": "late", "chunk_bytes": 1}, {"head": "late", "estimator": "monte-carlo"},
    {"head": "late", "latent": Sobol()},
])  # fmt: skip
def test_a_step_waits_once_a_sub_step_once_for_the_target_and_once_for_the_student(options, monkeypatch):
    """Whatever the head, and however many chunks: only numbers of uncertain positions are asked for."""
    monkeypatch.setattr(torch_rows, "_underflows", lambda mean, relevant: True)  # as on a GPU, which is not asked
    substeps = 2
    assert (
        waits(consistency=ConsistencyTerm(1.0, make(**options).loss.consistency.estimator), **options) == substeps + 2
    )
