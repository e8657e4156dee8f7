"""Lets torchvision import beside a torch that its operators were not built for (a CPU torch, a CUDA torchvision).

timm, and the models of transformers, import torchvision, which fails there with "operator torchvision::nms does not
exist" although nothing needs the operator. Where the two match, or torchvision is absent, nothing is done.
"""

import importlib.util
from pathlib import Path

import torch

_declared: list[torch.library.Library] = []  # a library that is collected takes its operators with it


def declare_missing_operators() -> bool:
    """Whether the operators were missing, and have been declared (without implementations)."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _exist() or _load(Path(found.origin).parent):
        return False
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return True


def _exist() -> bool:
    return hasattr(torch.ops.torchvision, "nms")


def _load(folder: Path) -> bool:
    """Whether torchvision's own operators load, as its import would load them next."""
    try:
        for library in folder.glob("_C*"):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return _exist()
