"""DeepSpeed's configuration from the spec's `deepspeed:` section and the train options."""

import copy
import difflib
from collections.abc import Mapping
from typing import Any

from di4c.engine.options import TrainOptions
from di4c.errors import SpecError

NOT_GIVEN = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.batch_size and train.micro_batch_size",
    "gradient_clipping": "train.clip",
    "optimizer": "train.optimizer",
    "scheduler": "train.schedule",
    "bf16": "train.precision",
    "bfloat16": "train.precision",
    "fp16": "train.precision",
    "amp": "train.precision",
    "steps_per_print": "train.log_every",
}
"""DeepSpeed's keys that a spec must not set, with the keys to use."""

USUAL = (
    "activation_checkpointing", "aio", "comet", "comms_logger", "communication_data_type", "csv_monitor", "data_types",
    "flops_profiler", "gradient_predivide_factor", "prescale_gradients", "sparse_gradients", "tensorboard", "torch_autocast",
    "wall_clock_breakdown", "wandb", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "zero_optimization",
)  # fmt: skip
"""DeepSpeed's keys that a spec may set. It passes over keys that it does not know, so that a mistyped one would count for nothing."""


def check_section(section: Mapping[str, Any]) -> None:
    """Raises SpecError for keys of a `deepspeed:` section that `train` says already, mistyped ones, and combinations that cannot run."""
    for key in section:
        if key in NOT_GIVEN:
            raise SpecError(f"deepspeed.{key}: set by the trainer; use {NOT_GIVEN[key]} instead.")
        near = (
            [] if key in USUAL else difflib.get_close_matches(str(key).lower(), (*USUAL, *NOT_GIVEN), n=1, cutoff=0.85)
        )
        if near:
            raise SpecError(
                f"deepspeed.{key}: DeepSpeed has no such key, and would pass over it. Did you mean {near[0]!r}?"
            )
    zero = _mapping(section, "zero_optimization", "deepspeed")
    stage = zero.get("stage", 0)
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage <= 3:
        raise SpecError(f"deepspeed.zero_optimization.stage: expected 0, 1, 2 or 3, found {stage!r}.")
    for key, least in (("offload_param", 3), ("offload_optimizer", 1)):
        device = _mapping(zero, key, "deepspeed.zero_optimization").get("device", "none")
        if device != "none" and stage < least:
            needed = "stage 3" if least == 3 else "stage 1, 2 or 3"
            raise SpecError(f"deepspeed.zero_optimization.{key} needs {needed}, found stage {stage}")


def deepspeed_config(section: dict[str, Any], options: TrainOptions, world_size: int) -> dict[str, Any]:
    """The dictionary for deepspeed.initialize: the section as it is, plus what the train options say.

    Raises SpecError as `check_section` does.
    """
    check_section(section)
    config = copy.deepcopy(section)
    micro, accumulation = options.micro_batches(world_size)
    config |= {
        "train_batch_size": options.batch_size, "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation, "gradient_clipping": options.clip or 0.0,
    }  # fmt: skip
    config["steps_per_print"] = None
    if options.precision == "bf16" and "torch_autocast" not in config:
        config["bf16"] = {"enabled": True}
    config.setdefault("zero_force_ds_cpu_optimizer", False)  # AdamW of torch, which needs no compiler, may be offloaded
    return config


def zero_stage(section: dict[str, Any]) -> int:
    """The ZeRO stage that a `deepspeed:` section asks for."""
    return int(section.get("zero_optimization", {}).get("stage", 0))


def _mapping(config: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """The mapping at a key, empty if there is none."""
    found = config.get(key) or {}
    if not isinstance(found, Mapping):
        raise SpecError(f"{where}.{key}: expected a mapping, found {found!r}.")
    return found
