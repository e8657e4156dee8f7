"""The verifier of reference cases, on the cases in tests/golden and on damaged ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(ROOT / "tools"))

import verify
from golden_cases.checks import Check
from golden_cases.registered import all_kinds, kind_of

CASES = sorted(path for path in GOLDEN.glob("*.safetensors"))


@pytest.fixture
def folder(tmp_path):
    for name in ("absorbing_sampler", "self_bleu"):
        for ending in (".safetensors", ".json"):
            shutil.copy(GOLDEN / (name + ending), tmp_path)
    return tmp_path


def changed(folder: Path, name: str, key: str, change) -> None:
    tensors = load_file(folder / f"{name}.safetensors")
    tensors[key] = change(tensors[key]).contiguous()
    save_file(tensors, folder / f"{name}.safetensors")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_case_agrees_with_the_reference(path):
    tensors, config, name = verify.load_case(path)
    checks = kind_of(name, set(tensors), all_kinds()).run(tensors, config)
    assert checks
    assert [f"{check.name}: {check.error:.1e} > {check.tolerance:.0e}" for check in checks if not check.ok] == []


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_kind_is_recognised_by_its_tensors_too(path):
    tensors, _, name = verify.load_case(path)
    kinds = all_kinds()
    by_name = kind_of(name, set(tensors), kinds)
    by_tensors = kind_of("another name", set(tensors), kinds)
    assert by_tensors is not None and by_tensors.run is by_name.run


def test_command_prints_a_line_a_case_and_succeeds(folder):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "verify.py", "golden", folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("absorbing_sampler") and "ok" in lines[0] and "tolerance" in lines[0]
    assert lines[-1] == "2 cases run, 0 failed, 0 not run"


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("out.ancestral_q_xs", lambda x: x * (1 + 1e-4)),
        ("out.ancestral_next_x", lambda x: x.flip(0)),
        ("out.sigma_t", lambda x: x[:-1]),
        ("out.analytic_probs", lambda x: x * torch.nan),
    ],
)
def test_a_wrong_number_fails(folder, capsys, key, change):
    changed(folder, "absorbing_sampler", key, change)
    assert verify.golden(folder) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_case_that_cannot_be_computed_fails_and_others_run(folder, capsys):
    (folder / "absorbing_sampler.json").write_text(json.dumps({"case": "absorbing_sampler", "config": {}}))
    assert verify.golden(folder) == 1
    out = capsys.readouterr().out
    assert "FAIL  KeyError" in out and "2 cases run, 1 failed" in out


def test_unknown_kinds_are_reported_and_alone_are_no_success(tmp_path, capsys):
    save_file({"out.y": torch.ones(1)}, tmp_path / "mystery.safetensors")
    (tmp_path / "mystery.json").write_text(json.dumps({"case": "mystery", "config": {}}))
    assert verify.golden(tmp_path) == 1
    assert "not run: unknown kind of case 'mystery'" in capsys.readouterr().out


def test_an_empty_folder_is_an_error_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "verify.py", "golden", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1 and "no case" in done.stderr and "Traceback" not in done.stderr


def test_measures_of_a_check():
    want = torch.tensor([100.0, 1.0, 0.0])
    got = want + torch.tensor([0.0, 1e-4, 0.0])
    assert Check("c", got, want, 2e-6, "relative").ok
    assert not Check("c", got, want, 2e-5, "elementwise").ok
    assert Check("c", got, want, 2e-4, "elementwise").ok
    assert Check("c", want, want, 0.0, "exact").ok and not Check("c", got, want, 0.0, "exact").ok
    assert Check("c", torch.zeros(2), torch.zeros(2), 1e-5, "relative").ok
    assert Check("c", torch.full((2,), 1e-9), torch.zeros(2), 1e-5, "relative").error == float("inf")
