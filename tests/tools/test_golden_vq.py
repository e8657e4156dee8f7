"""The verifier's cases of the VQ-image system, on the reference numbers in tests/golden."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import verify
from golden_cases.registered import kind_of
from golden_cases.vq import KINDS

FILES = sorted((ROOT / "tests" / "golden").glob("*.safetensors"))
CASES = [path for path in FILES if path.stem.startswith(("maskgit_", "vqgan_"))]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_case_agrees_with_the_reference(path):
    tensors, config, name = verify.load_case(path)
    checks = kind_of(name, set(tensors), KINDS).run(tensors, config)
    assert checks and {check.name for check in checks} <= {key.removeprefix("out.") for key in tensors}
    assert [check.name for check in checks if not check.ok] == []


def test_a_case_notices_a_wrong_parameter():
    tensors, config, name = verify.load_case(next(path for path in CASES if path.stem == "maskgit_teacher"))
    tensors["state.bias"] = tensors["state.bias"] + 0.01 * tensors["state.bias"].sign()
    assert not all(check.ok for check in kind_of(name, set(tensors), KINDS).run(tensors, config))
