"""DeepSpeed's configuration from the spec's `deepspeed:` section and the train options."""

import copy
from typing import Any

from di4c.engine.options import TrainOptions
from di4c.errors import SpecError

_OWNED = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.batch_size and train.micro_batch_size",
    "gradient_clipping": "train.clip",
    "optimizer": "train.optimizer",
    "scheduler": "train.schedule",
}


def deepspeed_config(section: dict[str, Any], options: TrainOptions, world_size: int) -> dict[str, Any]:
    """The dictionary for deepspeed.initialize: the section as it is, plus what the train options say.

    Raises SpecError for keys that the train options own, and for combinations that cannot run.
    """
    for key, owner in _OWNED.items():
        if key in section:
            raise SpecError(f"deepspeed.{key}: set by {owner}; remove it here")
    config = copy.deepcopy(section)
    micro, accumulation = options.micro_batches(world_size)
    config |= {
        "train_batch_size": options.batch_size, "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation, "gradient_clipping": options.clip or 0.0,
    }  # fmt: skip
    config.setdefault("steps_per_print", None)
    if options.precision == "bf16" and "torch_autocast" not in config:
        config.setdefault("bf16", {}).setdefault("enabled", True)
    _check_offload(config)
    config.setdefault("zero_force_ds_cpu_optimizer", False)  # AdamW of torch, which needs no compiler, may be offloaded
    return config


def zero_stage(section: dict[str, Any]) -> int:
    """The ZeRO stage that a `deepspeed:` section asks for."""
    return int(section.get("zero_optimization", {}).get("stage", 0))


def _check_offload(config: dict[str, Any]) -> None:
    zero, stage = config.get("zero_optimization", {}), zero_stage(config)
    if stage not in (0, 1, 2, 3):
        raise SpecError(f"deepspeed.zero_optimization.stage: found {stage}; allowed: 0, 1, 2, 3")
    if _offloads(zero, "offload_param") and stage != 3:
        raise SpecError(f"deepspeed.zero_optimization.offload_param needs stage 3, found stage {stage}")
    if _offloads(zero, "offload_optimizer") and stage == 0:
        raise SpecError("deepspeed.zero_optimization.offload_optimizer needs stage 1, 2 or 3, found stage 0")


def _offloads(zero: dict[str, Any], key: str) -> bool:
    return (zero.get(key) or {}).get("device", "none") != "none"
