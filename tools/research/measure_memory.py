"""The peak memory of training a spec, in fresh processes; see tools/research/measure_scale.py.

Trains on the CPU, and tells, for each rank, the peak resident memory of the host above that of the same process before it builds anything. Nothing is saved.
glibc is told to give every freed tensor back to the system, so that what is measured is what is held.
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from di4c.engine.launchers import free_port

TOP = Path(__file__).resolve().parents[2]
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": 2**17, "MALLOC_TRIM_THRESHOLD_": 2**17}
HOST_ONLY = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Trains on the CPU, since the host's memory is what is measured."""


def measure(spec: Mapping, *, ranks: int = 1, copies: int = 1, timeout: float = 1500) -> list[dict]:
    """[{"idle_bytes", "peak_bytes", "above_idle_bytes"}] of the ranks that train the spec, a fresh process each.

    copies: 2 gives a student with adapters a second copy of its base, to compare with sharing one.
    """
    paths = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
    shared = {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": 1}
    shared |= ALLOCATOR | HOST_ONLY | {"PYTHONPATH": paths}
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps({"spec": spec, "copies": copies})]
    streams = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environments = (shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(ranks))
    processes = [
        subprocess.Popen(command, env=os.environ | {k: str(v) for k, v in own.items()}, **streams)
        for own in environments
    ]
    told = [process.communicate(timeout=timeout)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("\n".join(told))
    return [json.loads(text.strip().splitlines()[-1]) for text in told]


def _train_here(job: Mapping) -> None:
    """Trains the job's spec in this process and prints its memory."""
    import tempfile

    from di4c.config import build as building
    from di4c.config.registry import Registry
    from di4c.config.spec import Spec
    from di4c.engine import process_group
    from di4c.engine.loop import Run, Trainer
    from di4c.torchvision_compat import declare_missing_operators
    from tools.research.benchmarks.measure import status

    declare_missing_operators()
    process_group.start()
    spec = Spec.from_dict(job["spec"])
    registry = Registry.default(spec.plugins)
    for name in ("transformers", "peft", "deepspeed.runtime.zero.stage3"):
        __import__(name)
    idle = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    if job["copies"] == 2:
        share_base = building.share_base
        building.share_base = lambda teacher, **options: share_base(copy.deepcopy(teacher), **options)
    with tempfile.TemporaryDirectory() as folder:
        parts = building.build(spec, registry)
        run, options = Run(seed=spec.seed), replace(spec.train, run=Path(folder))
        trainer = Trainer(parts.objective, parts.data.split("train"), run, options, spec.deepspeed)
        with trainer.batches() as batches:
            for _ in range(spec.train.steps):
                trainer._update(batches)
    peak = status("VmHWM")
    process_group.finish()
    print(json.dumps({"idle_bytes": idle, "peak_bytes": peak, "above_idle_bytes": peak - idle}), flush=True)


if __name__ == "__main__":
    _train_here(json.loads(sys.argv[1]))
