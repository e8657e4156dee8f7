"""Both ways: where torchvision's operators are missing, and where nothing must be done."""

import subprocess
import sys
import textwrap

import pytest

# What torchvision's import does: load its library if it can, then give an operator, which must exist, a fake kernel.
TORCHVISION = """
import torch
from pathlib import Path
try:
    torch.ops.load_library(str(Path(__file__).parent / "_C.so"))
except OSError:
    pass
torch.library.register_fake("torchvision::nms", lambda dets, scores, iou_threshold: dets)
"""
OPERATOR = 'library = torch.library.Library("torchvision", "DEF"); library.define("nms(Tensor dets) -> Tensor")'


@pytest.fixture
def torchvision(tmp_path):
    folder = tmp_path / "torchvision"
    folder.mkdir()
    (folder / "__init__.py").write_text(TORCHVISION)
    (folder / "_C.so").write_bytes(b"built for another torch")
    return tmp_path


def run(code: str, path) -> str:
    code = f"import sys, torch; sys.path.insert(0, {str(path)!r})\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_without_help_such_a_torchvision_does_not_import(torchvision):
    code = """
        try:
            import torchvision
        except RuntimeError as error:
            print(error)
    """
    assert "torchvision::nms does not exist" in run(code, torchvision)


def test_missing_operators_are_declared_once(torchvision):
    code = """
        from di4c.torchvision_compat import declare_missing_operators
        print(declare_missing_operators(), declare_missing_operators())
        import torchvision
    """
    assert run(code, torchvision) == "True False"


def test_existing_operators_are_left_alone(torchvision):
    code = f"""
        {OPERATOR}
        from di4c.torchvision_compat import declare_missing_operators
        print(declare_missing_operators(), hasattr(torch.ops.torchvision, "qnms"))
    """
    assert run(code, torchvision) == "False False"


def test_without_torchvision_nothing_is_declared(tmp_path):
    code = """
        import importlib.util
        importlib.util.find_spec = lambda name: None
        from di4c.torchvision_compat import declare_missing_operators
        print(declare_missing_operators(), hasattr(torch.ops.torchvision, "nms"))
    """
    assert run(code, tmp_path) == "False False"


@pytest.mark.slow
def test_timm_works_here(tmp_path):
    code = """
        from di4c.torchvision_compat import declare_missing_operators
        declare_missing_operators()
        import timm
        print(tuple(timm.create_model("resnet18").eval()(torch.randn(1, 3, 32, 32)).shape))
    """
    assert run(code, tmp_path) == "(1, 1000)"
