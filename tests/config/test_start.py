"""student.start: a student that goes on from a trained one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from di4c.config.build import build, portable
from di4c.config.registry import Registry
from di4c.config.spec import Spec
from di4c.errors import CheckpointError, SpecError
from tests.config.specs import DISTILL, changed

SPEC = changed(
    DISTILL,
    data={"name": "enumerable", "positions": 3, "states": 3, "examples": 16},
    teacher={"name": "enumerable", "backbone": {"name": "dit", "width": 8, "depth": 1, "heads": 2}},
    latent={"name": "categorical", "atoms": 2},
)


def built(spec: dict, **options):
    spec = Spec.from_dict(spec)
    return spec, build(spec, Registry.default(), **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's export, of weights that no fresh student has."""
    folder = tmp_path_factory.mktemp("run")
    spec, parts = built(SPEC)
    state = {name: torch.full_like(value, 0.25) for name, value in parts.student.state_dict().items()}
    (folder / "export").mkdir()
    save_file(state, folder / "export/model.safetensors")
    exported = portable(spec, parts.teacher).to_dict()
    config = {"format": "di4c-export", "version": 1, "task": "distill", "spec": exported, "step": 3}
    (folder / "export/config.json").write_text(json.dumps(config))
    return folder


def started(run: Path, **changes) -> dict:
    return changed(SPEC, student__start={"run": str(run)}, **changes)


@pytest.mark.parametrize("inside", ["", "export"])
def test_a_student_starts_from_a_trained_one(run, inside):
    spec, parts = built(started(run / inside))
    assert all((p == 0.25).all() for p in parts.student.parameters())
    assert "start" not in str({k: v for k, v in portable(spec, parts.teacher).to_dict()["student"].items() if v})
    assert spec.to_dict()["student"]["start"] == {"run": str(run / inside)}


def test_a_resumed_run_and_a_skeleton_do_not_read_it_again(tmp_path):
    for options in ({"start": False}, {"weights": False}):
        assert built(started(tmp_path / "gone"), **options)[1].student is not None
    with pytest.raises(CheckpointError, match="student.start.run: no model.safetensors in"):
        built(started(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"process": {"name": "absorbing", "mask_index": 5}}, "trained with process"),
        ({"latent": {"name": "categorical", "atoms": 3}}, "trained with latent"),
        ({"student__head": "adaln"}, "has student.head"),
    ],
)
def test_another_system_is_refused(run, changes, told):
    with pytest.raises(SpecError, match=told):
        built(started(run) | {} if not changes else changed(started(run), **changes))


def test_another_network_is_refused(run):
    with pytest.raises(CheckpointError, match="does not fit MixtureStudent"):
        built(changed(started(run), teacher__backbone__width=16))


def test_a_teachers_run_is_refused(run, tmp_path):
    shutil.copytree(run / "export", tmp_path / "export")
    config = json.loads((tmp_path / "export/config.json").read_text())
    config["spec"]["task"] = "pretrain"
    (tmp_path / "export/config.json").write_text(json.dumps(config))
    with pytest.raises(SpecError, match="is a run of task 'pretrain'"):
        built(started(tmp_path))
