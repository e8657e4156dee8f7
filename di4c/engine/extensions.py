"""DeepSpeed's compiled communication operator, built once an environment even if a build is killed half-way."""

import fcntl
import hashlib
import os
import sys
from pathlib import Path

import torch

ROOT = "TORCH_EXTENSIONS_DIR"


def load_communication_operator() -> None:
    """Builds (where needed) and loads what DeepSpeed's process group uses on a CPU; does nothing on a GPU.

    torch marks a build by a lock file that a killed process leaves behind, and then all later runs wait for ever. Here a build
    happens under a lock of the operating system's, which ends with its holder: a mark found while holding that lock is stale and
    removed. Each environment has a folder of its own, since builds of two environments replace one another.
    """
    if torch.cuda.is_available():
        return
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not builder.is_compatible(verbose=False):
        return
    folder = Path(os.environ.setdefault(ROOT, str(own_folder()))) / builder.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "di4c.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (folder / "lock").unlink(missing_ok=True)
        builder.load(verbose=False)


def own_folder() -> Path:
    """The folder of extensions of this environment: by interpreter and torch version."""
    key = hashlib.blake2b(f"{sys.prefix} {torch.__version__}".encode(), digest_size=4).hexdigest()
    return Path.home() / ".cache" / "torch_extensions" / f"di4c-{key}"
