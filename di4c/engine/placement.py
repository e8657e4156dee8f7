"""Where the frozen teacher's weights lie while its student is trained.

replicated   whole on every rank's device
sharded      a slice a rank, gathered layer by layer when the teacher is called (ZeRO-3 for inference)
offloaded    the slices in the host's memory
shared base  the student's own weights (student.lora): they lie where `deepspeed:` puts the student's
"""

from typing import Any, Literal

import deepspeed
import torch
from torch import nn

from di4c.contracts import Teacher
from di4c.engine import process_group
from di4c.errors import SpecError

Placement = Literal["replicated", "sharded", "offloaded"]


def place(teacher: Teacher, placement: Placement, device: torch.device, section: dict[str, Any]) -> None:
    """Puts the teacher's weights where `placement` says; it is called as before, by all ranks equally often. Collective.

    The output head stays whole on every rank: losses read it chunk by chunk, and a rank has as many chunks as its data ask for.
    section: the spec's `deepspeed:`, whose stage3_… settings are the teacher's too. Raises SpecError where the teacher has no
    weights of its own.
    """
    if placement == "replicated":
        teacher.to(device)
        return
    backbone = teacher.backbone
    if not list(backbone.parameters()):
        raise SpecError(
            f"train.teacher_placement: {placement}, but the teacher has no weights beside its student's; at stage 3 they are "
            "sharded with it, and offloaded by offload_param"
        )
    head = backbone.readout
    backbone.readout = nn.Identity()  # neither sharded nor hooked
    _untie(head, backbone)
    with process_group.told_when_slow("DeepSpeed is sharding the teacher"):
        _shard(backbone, section, offloaded=placement == "offloaded")
    backbone.readout = head
    teacher.to(device)


def _untie(head: nn.Module, network: nn.Module) -> None:
    """Gives the output head copies of the parameters that the network uses as well (tied embeddings)."""
    shared = {id(parameter) for parameter in network.parameters()}
    for module in head.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in shared:
                setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))


def _shard(network: nn.Module, section: dict[str, Any], *, offloaded: bool) -> None:
    given = {key: value for key, value in section.get("zero_optimization", {}).items() if key.startswith("stage3_")}
    zero = given | {"stage": 3} | ({"offload_param": {"device": "cpu"}} if offloaded else {})
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, "steps_per_print": None}
    kinds = {parameter.dtype for parameter in network.parameters()}
    if torch.bfloat16 in kinds:
        config["bf16"] = {"enabled": True}
    deepspeed.zero.Init(module=network, config_dict_or_path=config)
    deepspeed.initialize(model=network, config=config)
