"""Faults are told in one message, nothing saved is lost, and the run completes with the losses of an undisturbed one."""

import json
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from di4c.engine import checkpoint, process_group
from di4c.engine.archive import DTYPES
from di4c.engine.run_folder import RunFolder
from di4c.errors import SpecError, TrainingError
from tests.engine.launching import exported, launch, losses, relative, start
from tests.engine.toy import ToySplit

STAGES = (0, 1, 2, 3)
KEEP = {"options": {"keep": 3}}


def stage(number: int) -> dict:
    return {"zero_optimization": {"stage": number}}


def saved(step: int) -> str:
    return f"checkpoints/step-{step:08d}"


SKIP = {"objective": {"poison": [4], "explode": [8]}, "options": {"on_nonfinite": "skip"}}
SKIPPING = {f"{s}": stage(s) for s in STAGES}
SKIPPING["offload"] = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def faults(folder) -> tuple[dict[str, dict], str]:
    """Results of one-rank jobs by name, and what they printed."""
    good = {"folder": f"{folder}/good"} | KEEP
    resume = {"resume": True, "copy": f"{folder}/good"} | KEEP
    full = {"drop": [saved(10), saved(12)], "file_limit": 20000, "folder": f"{folder}/full"}
    jobs = {
        "good": good,
        "exists": good,
        "complete": good | {"resume": True},
        "other data": good | {"resume": True, "fingerprint": "toy-2"},
        "nothing yet": {"folder": f"{folder}/fresh", "resume": True},
        "damaged": resume | {"folder": f"{folder}/damaged", "flip": [f"{saved(12)}/ema.safetensors"],
                             "cut": [f"{saved(10)}/optimizer.safetensors"]},
        "all damaged": resume | {"folder": f"{folder}/ruined", "cut": [f"{saved(n)}/manifest.json" for n in (5, 10, 12)]},
        "full disk": resume | full,
        "space again": resume | {"folder": f"{folder}/space", "copy": f"{folder}/full"},
        "deterministic": good | {"folder": f"{folder}/deterministic", "options": {"deterministic": True}},
        "unreadable": {"folder": f"{folder}/unreadable", "data": {"unreadable": 14}},  # the second half of step 7
        "nan": {"folder": f"{folder}/nan", "objective": {"poison": [6]}, "options": {"log_every": 5}},
        "explode": {"folder": f"{folder}/explode", "objective": {"explode": [6]}, "deepspeed": stage(2)},
        "explode 0": {"folder": f"{folder}/explode-0", "objective": {"explode": [9]}, "options": {"clip": None, "log_every": 12}},
        "collapsed": {"folder": f"{folder}/collapsed", "objective": {"collapsed": 1.0}, "options": {"diagnostics_every": 3}},
        **{f"skip {n}": SKIP | {"folder": f"{folder}/skip-1-{n}", "deepspeed": c} for n, c in SKIPPING.items()},
    }  # fmt: skip
    results, text = launch(list(jobs.values()))
    return dict(zip(jobs, results, strict=True)), text


@pytest.fixture(scope="module")
def undisturbed(faults, folder) -> list[float]:
    return losses(folder / "good")


def test_an_existing_run_is_not_overwritten(faults):
    result, _ = faults
    assert result["exists"]["kind"] == "TrainingError"
    assert "already holds a run; add --resume" in result["exists"]["error"]


def test_resuming_a_complete_run_says_so(faults):
    result, text = faults
    assert result["complete"] == {"step": 12, "finished": True, "already": True}
    assert "the run is complete (12 steps); nothing to do" in text


def test_resuming_without_a_checkpoint_starts_anew(faults, folder, undisturbed):
    result, text = faults
    assert result["nothing yet"]["finished"] and "no checkpoint yet; starting from the beginning" in text
    assert losses(folder / "fresh") == undisturbed


def test_changed_data_are_an_error(faults):
    result, _ = faults
    assert result["other data"]["kind"] == "DataError" and "toy-2" in result["other data"]["error"]


def test_damaged_checkpoints_are_named_and_the_last_good_one_is_used(faults, folder, undisturbed):
    result, text = faults
    assert result["damaged"] == {"step": 12, "finished": True, "already": False}
    assert "step-00000012 is damaged (ema.safetensors does not match its checksum)" in text
    assert "step-00000010 is damaged (optimizer.safetensors does not match its checksum)" in text
    assert losses(folder / "damaged") == undisturbed
    assert result["all damaged"]["kind"] == "CheckpointError" and "every checkpoint" in result["all damaged"]["error"]


def test_a_batch_that_cannot_be_read_ends_the_run_at_its_step(faults, folder, undisturbed):
    result, _ = faults
    assert result["unreadable"]["kind"] == "DataError" and "cannot be read" in result["unreadable"]["error"]
    assert losses(folder / "unreadable") == undisturbed[:6]
    assert [p.name for p in checkpoint.candidates(folder / "unreadable" / "checkpoints")] == ["step-00000005"]


def test_a_deterministic_run_is_recorded_as_one(faults, folder, undisturbed):
    assert faults[0]["deterministic"]["finished"] and losses(folder / "deterministic") == undisturbed
    told = [
        json.loads((folder / name / "run.json").read_text())["sessions"][0]["deterministic"]
        for name in ("deterministic", "nan")
    ]
    assert told == [True, False]


def test_a_full_disk_keeps_the_last_checkpoint(faults, folder, undisturbed):
    result, _ = faults
    message = result["full disk"]["error"]
    assert (
        result["full disk"]["kind"] == "TrainingError"
        and "step-00000010 was not saved" in message
        and "space" in message
    )
    left = folder / "full" / "checkpoints"
    assert [p.name for p in left.iterdir() if p.name != "latest"] == ["step-00000005"]
    assert checkpoint.damage(left / "step-00000005") is None
    assert result["space again"]["finished"] and losses(folder / "space") == undisturbed


def test_a_nan_loss_stops_names_its_step_and_keeps_its_batch(faults, folder):
    result, _ = faults
    assert result["nan"]["kind"] == "TrainingError" and "the loss of step 7 is not finite" in result["nan"]["error"]
    batch = torch.load(folder / "nan" / "nonfinite-step-7.pt", weights_only=True)
    assert batch["step"] == 6 and torch.equal(batch["x_0"], ToySplit().x_0[batch["indices"]]) and len(batch["x_0"]) == 8
    assert [p.name for p in checkpoint.candidates(folder / "nan" / "checkpoints")] == ["step-00000005"]
    assert all(v.isfinite().all() for v in exported(folder / "nan").values())


def test_an_infinite_gradient_is_never_saved(faults, folder):
    result, _ = faults
    assert "a gradient was not finite" in result["explode"]["error"]
    assert "weights after step 10 are not finite" in result["explode 0"]["error"]
    for name in ("explode", "explode-0"):
        assert [p.name for p in checkpoint.candidates(folder / name / "checkpoints")] == ["step-00000005"]


def test_a_collapsed_mixture_is_warned_of_once_on_the_console_and_in_the_folder(faults, folder):
    assert "warning: step 3: the mixture has collapsed to a product" in faults[1]
    assert faults[1].count("the mixture has collapsed") == 1
    (line,) = (folder / "collapsed/warnings.txt").read_text().splitlines()
    assert line.startswith("mixture-collapsed: step 3: ") and "train.optimizer.lr_multipliers" in line
    assert not (folder / "good/warnings.txt").exists()


def test_skipped_steps_change_no_weight_at_any_stage(faults, folder):
    """One rank with accumulation, two ranks of which one sees the NaN: the same losses, none for the skipped step."""
    result, text = faults
    assert all(result[f"skip {name}"].get("finished") for name in SKIPPING), result
    assert "step 5 is skipped" in text and "step 9 is skipped" in text
    jobs = [SKIP | {"folder": f"{folder}/skip-2-{n}", "deepspeed": c} for n, c in SKIPPING.items()]
    results, _ = launch(jobs, ranks=2)
    assert all(r.get("finished") for r in results), results
    expected = losses(folder / "skip-1-0")
    assert len(expected) == 10 and (folder / "skip-1-0" / "nonfinite-step-5.pt").exists()
    for name in SKIPPING:
        for number in (1, 2):
            assert relative(losses(folder / f"skip-{number}-{name}"), expected) < 1e-5, (name, number)


def test_a_folder_serves_one_run_at_a_time(tmp_path):
    first = RunFolder(tmp_path / "run", resume=False)
    with pytest.raises(TrainingError, match="in use by another run"):
        RunFolder(tmp_path / "run", resume=True)
    first.close()
    RunFolder(tmp_path / "run", resume=True).close()


def wait_for(path: Path, processes: list) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes), f"{path} did not appear"
        time.sleep(0.005)


def test_a_killed_run_continues_exactly(folder, undisturbed):
    job = {"folder": f"{folder}/killed", "objective": {"pause": 0.02}, "resume": True}
    processes, _ = start([job])
    wait_for(folder / "killed" / "checkpoints" / "step-00000005", processes)
    processes[0].send_signal(signal.SIGKILL)
    processes[0].communicate()
    results, text = launch([job])
    assert "resumed from" in text and results[0]["finished"]
    assert losses(folder / "killed") == undisturbed


def test_sigterm_to_one_rank_writes_a_checkpoint_and_ends_both(folder, undisturbed):
    job = {"folder": f"{folder}/terminated", "objective": {"pause": 0.05}, "deepspeed": stage(3)}
    processes, _ = start([job | {"options": {"checkpoint_every": 0}}], ranks=2)
    wait_for(folder / "terminated" / "run.json", processes)
    processes[1].send_signal(signal.SIGTERM)
    text, _ = processes[0].communicate(timeout=120)
    processes[1].communicate(timeout=120)
    assert [p.returncode for p in processes] == [process_group.STOPPED_BY_SIGNAL] * 2
    assert "stopped by SIGTERM after step" in text
    assert len(checkpoint.candidates(folder / "terminated" / "checkpoints")) == 1
    results, _ = launch([job | {"resume": True}])
    assert results[0]["finished"] and relative(losses(folder / "terminated"), undisturbed) < 1e-5


@pytest.mark.parametrize("kind", ["buffer", "frozen parameter"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_type_that_no_checkpoint_holds_is_told_before_training(kind, dtype):
    """Some networks have complex tables of angles; those of 64 bits are held."""
    module, table = torch.nn.Module(), torch.ones(3, dtype=dtype)
    if kind == "buffer":
        module.register_buffer("angles", table)
    frozen = {} if kind == "buffer" else {"angles": table}
    module.register_buffer("scratch", torch.ones(3, dtype=torch.complex128), persistent=False)
    shards = SimpleNamespace(engine=SimpleNamespace(module=module), frozen=frozen)
    told = nullcontext() if dtype in DTYPES else pytest.raises(SpecError, match="angles is of type torch.complex128")
    with told:
        checkpoint.check_types(shards)


def reached(folder: Path) -> int:
    """The step of the newest checkpoint, good or not."""
    return max((int(p.name[5:]) for p in checkpoint.candidates(folder / "checkpoints")), default=0)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(folder):
    """Most kills fall between steps or into the writing of a checkpoint, which follows every step; some into the start-up."""
    run, options = folder / "hunted", {"steps": 200, "checkpoint_every": 1}
    job = {"folder": str(run), "objective": {"pause": 0.02}, "resume": True, "options": options}
    moments = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)).tolist()
    for number, (share, moment) in enumerate(moments):
        goal = reached(run) + int(4 * share)
        processes, _ = start([job])
        while number % 5 != 4 and reached(run) < goal:
            assert processes[0].poll() is None, processes[0].communicate()[0]
            time.sleep(0.002)
        time.sleep(moment * (2.5 if number % 5 == 4 else 0.1))
        processes[0].send_signal(signal.SIGKILL)
        processes[0].communicate()
    assert 10 < reached(run) < 200
    results, _ = launch([job, {"folder": f"{folder}/not-hunted", "options": options}])
    assert results[0]["finished"] and losses(run) == losses(folder / "not-hunted")
