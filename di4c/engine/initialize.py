"""DeepSpeed's engine around an objective."""

import contextlib
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from torch import nn

from di4c import ranks
from di4c.contracts.objective import Objective
from di4c.engine import process_group
from di4c.engine.compiling import compile_backbones
from di4c.engine.deepspeed_config import deepspeed_config
from di4c.engine.graphs import replay_backbones
from di4c.engine.optimizer import build_optimizer, parameter_groups
from di4c.engine.options import TrainOptions
from di4c.errors import SpecError


def initialize(objective: Objective, options: TrainOptions, section: dict, device: torch.device):
    """The DeepSpeed engine with AdamW, by the spec's `deepspeed:` section and the train options. Collective."""
    config = deepspeed_config(section, options, ranks.world_size())
    groups = parameter_groups(objective, options.optimizer)
    objective.to(device).train()
    for parameter in objective.parameters():
        parameter.data = parameter.data.contiguous()
    if options.compile:
        compile_backbones(objective, *([] if objective.teacher is None else [objective.teacher.network]))
    optimizer = build_optimizer(groups, options.optimizer)
    with process_group.told_when_slow("DeepSpeed is preparing its engine"), _told():
        engine, *_ = deepspeed.initialize(model=objective, optimizer=optimizer, config=config)
    if hasattr(engine.optimizer, "fp32_groups"):
        # This wrapper of stage 0 in bfloat16 has taken an empty step, which would shift the bias correction.
        engine.optimizer.optimizer.state.clear()
    if options.replays and device.type == "cuda" and engine.zero_optimization_stage() < 3:
        whole = objective.teacher is not None and options.teacher_placement == "replicated"
        replay_backbones(objective, *([objective.teacher.network] if whole else []))
    return engine


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What DeepSpeed says of its configuration's keys and values as a SpecError."""
    try:
        yield
    except ValueError as error:
        errors: Any = getattr(error, "errors", None)
        if not callable(errors):
            raise  # not of pydantic, by which DeepSpeed checks its keys
        first = errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise SpecError(f"deepspeed: {key}: {first['msg']}; found {first['input']!r}") from error


def tied_names(module: nn.Module) -> dict[str, str]:
    """{further name of a tied parameter: its first name}, of those that the state dict holds."""
    first, held = {id(p): n for n, p in module.named_parameters()}, module.state_dict(keep_vars=True)
    every = module.named_parameters(remove_duplicate=False)
    return {n: first[id(p)] for n, p in every if n != first[id(p)] and n in held}
