"""What M and D cost in memory: the features and their gradients, not the logits. Bytes are counted, at a small size."""

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from di4c.contracts import AffineOutputHead, Draws, Prediction, Raw
from di4c.mixture.sums import Query, statistics
from di4c.mixture.target import KEPT_CHUNKS
from di4c.planning.live import LiveBytes
from tests.mixture.mixture_cases import drawn_with_marginals

STATES, WIDTH, CHUNK = 1000, 64, 2**20
NEEDS = frozenset({"joint", "marginal", "kl"})


def peak_bytes(components: int, positions: int) -> int:
    """Of the loss's sums and their gradients, above features, weights and target."""
    torch.manual_seed(0)
    features = torch.randn(components, positions, WIDTH, requires_grad=True)
    readout, x_t = AffineOutputHead(WIDTH, STATES), torch.zeros(1, positions, dtype=torch.int64)
    student = Prediction(features, x_t, readout, Raw(), STATES, components)
    teacher = Prediction(torch.randn(1, positions, WIDTH), x_t, readout, Raw(), STATES)
    samples: Tensor = torch.randint(STATES, (1, 2, positions))
    with LiveBytes(readout) as live:
        found = statistics(student, [Query(NEEDS, samples, teacher)], chunk_bytes=CHUNK)[0]
        (found.kl - found.joint.logsumexp(-1).mean() + found.marginal.mean()).sum().backward()
    assert features.grad is not None
    return live.peak


@pytest.mark.parametrize("more", [{"components": 16, "positions": 64}, {"components": 8, "positions": 128}])
def test_doubling_costs_no_more_than_features_and_gradients(more):
    base = {"components": 8, "positions": 64}
    # as many features are added as there were, and their gradients
    both = 2 * 4 * base["components"] * base["positions"] * WIDTH
    assert peak_bytes(**more) - peak_bytes(**base) <= 1.1 * both


def test_the_logits_do_not_exist_at_once():
    components, positions = 16, 256
    assert peak_bytes(components, positions) < 0.5 * 4 * components * positions * STATES


def against_itself(components: int, positions: int) -> Tensor:
    """The mixture scored against a target of as many components with the same output head: the loss, with its gradients."""
    torch.manual_seed(0)
    readout, x_t = AffineOutputHead(WIDTH, STATES), torch.zeros(1, positions, dtype=torch.int64)
    student, target = (
        Prediction(
            torch.randn(components, positions, WIDTH, requires_grad=grad), x_t, readout, Raw(), STATES, components
        )
        for grad in (True, False)
    )
    x, marginals = drawn_with_marginals(target, Draws(0, count=1), chunk_bytes=CHUNK, keep_bytes=KEPT_CHUNKS * CHUNK)
    found = statistics(student, [Query(NEEDS, x, marginals)], chunk_bytes=CHUNK)[0]
    loss = (found.kl - found.joint.logsumexp(-1).mean() + found.marginal.mean()).sum()
    loss.backward()
    return loss.detach()


def live_bytes(components: int, positions: int) -> int:
    """The peak of `against_itself`, features included."""
    with LiveBytes(AffineOutputHead(1, 1)) as live:
        against_itself(components, positions)
    return live.peak


@pytest.mark.parametrize(
    ("fewer", "more"), [((8, 256), (8, 512)), ((8, 512), (8, 1024)), ((8, 1024), (8, 2048)), ((8, 256), (16, 256))]
)
def test_the_targets_marginals_do_not_grow_with_the_positions(fewer, more):
    """Kept while they fit (256 and 512 positions, with ever smaller chunks), read again beyond."""
    features = 4 * (more[0] * more[1] - fewer[0] * fewer[1]) * WIDTH
    student_target_and_gradients = 3 * features
    assert live_bytes(*more) - live_bytes(*fewer) <= 1.1 * student_target_and_gradients


class LargeTensors(TorchDispatchMode):
    """Counts the calls that return a tensor of more than half a chunk, by the number of storages they are in."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: Counter[int] = Counter()
        self.kept: list = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().nbytes() > CHUNK // 2:
            self.kept.append(result)  # alive, so that no other takes its address
            self.storages[result.untyped_storage().data_ptr()] += 1
        return result


def test_no_chunk_makes_large_tensors_of_its_own():
    """They would leave holes in the heap that the next chunk does not fit: the number of them does not depend on that of chunks."""
    counts = []
    for positions in (1024, 2048):  # marginals are read again
        with LargeTensors() as large:
            against_itself(8, positions)
        counts.append(len(large.storages))
    assert counts[0] == counts[1] > 0
