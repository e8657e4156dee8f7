"""Every system, objective and head at every ZeRO stage on two ranks: the losses of one rank, the average of two without ZeRO."""

import pytest
import torch

from tests.engine.launching import exported, losses, relative, train_specs
from tests.scale.systems import job, systems

NAMES = [
    "token", "adaln", "late", "readout", "rollouts", "language", "sdtt", "class-conditional", "pixels", "nelbo", "denoising",
    "masked-cross-entropy", "tokenizer",
]  # fmt: skip
CPU = {"device": "cpu"}
WAYS = {f"stage-{s}": {"stage": s, "stage3_param_persistence_threshold": 0} for s in (0, 1, 2, 3)}
WAYS["offloaded"] = WAYS["stage-3"] | {"offload_optimizer": CPU, "offload_param": CPU}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds the runs NAME-alone on one rank, and NAME-WAY on two."""
    folder = tmp_path_factory.mktemp("systems")
    found = systems(folder)
    assert set(found) == set(NAMES)
    train_specs([job(found[name], f"{folder}/{name}-alone", {"stage": 0}) for name in NAMES], timeout=3000)
    together = [job(found[name], f"{folder}/{name}-{way}", zero) for name in NAMES for way, zero in WAYS.items()]
    train_specs(together, ranks=2, timeout=3000)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_stages_give_the_same_losses_and_average(folder, name):
    together, average = losses(folder / f"{name}-stage-0"), exported(folder / f"{name}-stage-0")
    assert relative(together, losses(folder / f"{name}-alone")) < 1e-4
    for way in WAYS:
        assert relative(losses(folder / f"{name}-{way}"), together) < 1e-4, way
        found = exported(folder / f"{name}-{way}")
        assert found.keys() == average.keys()
        for key, value in average.items():
            torch.testing.assert_close(
                found[key], value, rtol=1e-3, atol=1e-5, msg=lambda text, key=key, way=way: f"{way} {key}: {text}"
            )
