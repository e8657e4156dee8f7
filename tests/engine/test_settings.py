"""What an objective chooses by the device: one value for all ranks, recorded, and kept by later sessions."""

import json

import pytest
import torch

from di4c import ranks
from di4c.engine.run_folder import RunFolder
from di4c.errors import SpecError
from di4c.kernels.backend import CPU_BYTES
from tests.losses.test_objective import make


def test_the_budget_of_the_device_unless_the_spec_says_it():
    objective = make()
    settings = objective.device_settings(torch.device("cpu"))
    assert settings == {"chunk_bytes": CPU_BYTES}
    objective.use_settings({"chunk_bytes": 12345})
    assert objective.options.chunk_bytes == objective.loss.chunk_bytes == 12345
    said = make(chunk_bytes=99)
    assert said.device_settings(torch.device("cpu")) == {}
    said.use_settings({})
    assert said.loss.chunk_bytes == 99


def test_one_rank_takes_its_own():
    assert ranks.least({"chunk_bytes": 7}, torch.device("cpu")) == {"chunk_bytes": 7}


def test_a_run_keeps_what_its_first_session_chose(tmp_path):
    folder = RunFolder(tmp_path / "run", resume=False)
    assert folder.settings() == {}
    folder.record_start({}, {"settings": {"chunk_bytes": 1}})
    folder.record_start({}, {"settings": {"chunk_bytes": 2}})
    assert folder.settings() == {"chunk_bytes": 1}
    folder.close()
    assert json.loads((tmp_path / "run/run.json").read_text())["sessions"][0]["settings"] == {"chunk_bytes": 1}


def test_what_deepspeed_says_of_its_keys_is_one_line():
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    from di4c.engine.initialize import _told

    for zero, told in (({"stag": 2}, "stag: Extra"), ({"stage": "two"}, "stage: Input"), ({"offload_param": {"device": "disk"}}, "offload_param.device: ")):  # fmt: skip
        with pytest.raises(SpecError, match=f"deepspeed: {told}"), _told():
            DeepSpeedZeroConfig(**zero)
    with pytest.raises(ValueError, match="another"), _told():
        raise ValueError("another")
