"""The verifier's cases of the pixel system, on the reference numbers in tests/golden."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import verify
from golden_cases.pixels import KINDS
from golden_cases.registered import kind_of

CASES = sorted(
    path for path in (ROOT / "tests" / "golden").glob("*.safetensors") if path.stem.startswith(("gaussian_", "tauldr_"))
)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_case_agrees_with_the_reference(path):
    tensors, config, name = verify.load_case(path)
    checks = kind_of(name, set(tensors), KINDS).run(tensors, config)
    assert len(checks) >= 3
    assert [check.name for check in checks if not check.ok] == []


@pytest.mark.parametrize(
    ("case", "option", "value"),
    [
        ("gaussian_rate_small", "Q_sigma", 8.1),
        ("gaussian_posterior", "time_base", 3.1),
        ("tauldr_unet_student", "skip_rescale", False),
    ],
)
def test_a_case_notices_a_wrong_setting(case, option, value):
    path = next(path for path in CASES if path.stem == case)
    tensors, config, name = verify.load_case(path)
    assert not all(check.ok for check in kind_of(name, set(tensors), KINDS).run(tensors, config | {option: value}))
