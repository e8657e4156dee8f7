"""The device of a test process: the CPU, any GPU hidden from it and from what it starts, unless tests of a GPU are asked for.

Kernels run either in Triton's interpreter (CPU) or compiled (GPU), never both in one process, and ranks of the CPU tests must not
share a GPU. So `pytest` tests on the CPU everywhere, and `pytest -m gpu`, or `pytest tests/gpu`, on the GPU.
"""

import re
from collections.abc import MutableMapping, Sequence
from pathlib import Path

CHOICE = "DI4C_TESTS_ON"
"""Environment variable that hands the choice, "cpu" or "gpu", to pytest's worker processes."""
HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "TRITON_INTERPRET": "1"}
"""What hides GPUs from torch and DeepSpeed, and runs Triton's kernels on the CPU."""


def choose(arguments: Sequence[str], environment: MutableMapping[str, str]) -> None:
    """Hides the GPU in `environment` unless pytest's `arguments` ask for tests of a GPU."""
    if environment.setdefault(CHOICE, "gpu" if asks_for_gpu(arguments) else "cpu") == "cpu":
        environment.update(HIDDEN)


def asks_for_gpu(arguments: Sequence[str]) -> bool:
    """Whether the marks select `gpu`; where they do not mention it, whether all paths lie in a folder named gpu."""
    marks = [
        argument.removeprefix("-m") or value
        for argument, value in zip(arguments, [*arguments[1:], ""], strict=False)
        if argument[:2] == "-m"
    ]
    mentions = re.findall(r"(\bnot\s+)?\bgpu\b", marks[-1]) if marks else []
    if mentions:
        return "" in mentions
    paths = [Path(argument.partition("::")[0]) for argument in arguments if not argument.startswith("-")]
    found = [path.resolve() for path in paths if path.exists()]
    return bool(found) and all("gpu" in path.parts for path in found)
