"""Plans against measurements, and one copy of the weights against two: python tools/research/measure_scale.py [--cells NAME,…] [--out FILE]

Trains random-weight models of 110 million parameters for three steps in fresh processes, and writes what each cell needed, what
the plan says it would, the machine and the commit to a JSON file; cells that are there already stay unless named. A cell takes
up to 8 GB of memory and a CPU minute or two. --replan measures nothing and renews what the plan says of the cells in the file.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from di4c.command_line import path_argument
from di4c.config.spec import Spec, read_spec
from di4c.engine.run_folder import code_commit
from tools.ablation.grid import assignments
from tools.research.measure_memory import measure

SPEC = Path(__file__).with_name("scale.yaml")
CPU = {"device": "cpu"}
STAGES = {f"stage-{stage}": {"stage": stage} for stage in range(4)} | {
    "stage-2-offload": {"stage": 2, "offload_optimizer": CPU},
    "stage-3-offload": {"stage": 3, "offload_optimizer": CPU, "offload_param": CPU},
}
LORA = {"rank": 16, "targets": ["query", "value"], "alpha": 32}
BASES = {"shared-base": (LORA, 1), "lora-on-a-copy": (LORA, 2), "two-full-copies": (None, 1)}
"""Name → (adapters, copies of the base): the second differs from the first in nothing but the copy."""

ABOUT = (
    "Peak resident memory of a rank above an idle process, and what `plan` says of it: a random BERT-base (110 M parameters) distilled "
    "with 2 examples a rank, M = 2, fp32; stages on 2 ranks (offloading here moves nothing off the host, which is the device), bases on "
    "one. *shared base*: LoRA of rank 16, teacher and student on one copy of the weights; *lora on a copy*: the same with a copy for the "
    "teacher. Machine and commits in [tools/results/memory.json](tools/results/memory.json)."
)


def cell(name: str, before: dict | None = None) -> dict:
    """What one cell measured (or had measured `before`), and what its plan says; no plan knows of a second copy of a base."""
    ranks = 2 if name in STAGES else 1
    lora, copies = BASES.get(name, (None, 1))
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("lorem ipsum dolor sit amet " * 100)
        changes = {
            "data.path": str(text), "data.cache": f"{folder}/cache", "train.run": f"{folder}/run", "train.batch_size": 2 * ranks,
            "student.lora": lora, "deepspeed.zero_optimization": STAGES.get(name, {"stage": 0}),
        }  # fmt: skip
        spec = read_spec(SPEC, assignments(changes))
        result = before
        if before is None:
            found = measure(spec.to_dict(), ranks=ranks, copies=copies, timeout=7200)
            most = max(rank["above_idle_bytes"] for rank in found)
            result = {"ranks": ranks, "lora": lora, "copies_of_the_base": copies, "measured_bytes": most}
            result |= {"of_each_rank": found, "commit": code_commit()}
        return result | (_planned(spec, ranks, result["measured_bytes"]) if copies == 1 else {})


def _planned(spec: Spec, ranks: int, measured: int) -> dict:
    from di4c.planning.plan import Plan

    plan = Plan(spec, gpus=ranks, bucket_full=False)
    zero = spec.deepspeed["zero_optimization"]
    needed = plan.memory(plan.engine(zero["stage"], offload="offload_optimizer" in zero))
    total = needed.peak + needed.host
    return {
        "trained_parameters": plan.sizes.trained, "frozen_parameters": plan.sizes.frozen, "planned_bytes": total,
        "planned_over_measured": round(total / measured, 3), "planned_items": vars(needed), "planned_commit": code_commit(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", help=f"of {', '.join([*STAGES, *BASES])}; default: all")
    parser.add_argument("--out", type=path_argument, default=TOP / "tools/results/memory.json")
    parser.add_argument("--replan", action="store_true", help="renew the plans of the cells in the file")
    arguments = parser.parse_args()
    names = arguments.cells.split(",") if arguments.cells else [*STAGES, *BASES]
    for name in names:
        content = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {"cells": {}}
        if arguments.replan and name not in content["cells"]:
            continue
        found = cell(name, content["cells"][name] if arguments.replan else None)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        system = f"{platform.machine()} {platform.system()}, {os.cpu_count()} CPU cores"
        content["machine"] = f"{system}, {memory:.0f} GiB, Python {platform.python_version()}"
        content["cells"][name] = found
        content |= {"about": ABOUT} | _saved(content["cells"])
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
        told = ("measured_bytes", "planned_bytes", "planned_over_measured")
        print(name, {key: found.get(key) for key in told}, flush=True)


def _saved(cells: dict) -> dict:
    """How much of one copy of the base sharing it saves."""
    if not {"shared-base", "lora-on-a-copy"} <= set(cells):
        return {}
    shared, copied = cells["shared-base"], cells["lora-on-a-copy"]
    size = 4 * shared["frozen_parameters"]
    saved = round((copied["measured_bytes"] - shared["measured_bytes"]) / size, 3)
    return {"bytes_of_one_copy": size, "saved_over_one_copy": saved}


if __name__ == "__main__":
    main()
