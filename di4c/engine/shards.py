"""Where this rank holds the float32 weights and optimizer moments of each parameter, at any ZeRO stage.

DeepSpeed keeps master weights in flat tensors, whole (stage 0) or one slice a rank (stages 1–3). `Shards` names those
tensors once; EMA, checkpoints and resumption then need no stage of their own, since everything is elementwise:

    masters[i] ── slot of a parameter: masters[i][offset : offset + numel] = parameter.flatten()[start : start + numel]
"""

from dataclasses import dataclass
from functools import cached_property

import deepspeed
import torch
from deepspeed import comm as dist
from torch import Tensor, nn

from di4c.errors import SpecError


@dataclass(frozen=True)
class Slot:
    """A parameter's part on this rank; numel = 0 if it has none."""

    tensor: int
    offset: int
    start: int
    numel: int


class Shards:
    """The master weights of an engine's trainable parameters. Subclasses say where a stage keeps them.

    names: parameter names in the order of definition. shapes: their full shapes. sharded: whether ranks hold parts.
    frozen: the parameters that are not trained, by name, but for those that the state dict leaves out (a shared base).
    """

    sharded = False

    def __init__(self, engine):
        self.engine = engine
        self.parameters = {n: p for n, p in engine.module.named_parameters() if p.requires_grad}
        held = engine.module.state_dict(keep_vars=True)
        self.frozen = {n: p for n, p in engine.module.named_parameters() if not p.requires_grad and n in held}
        self.names = list(self.parameters)
        self.shapes = {n: tuple(getattr(p, "ds_shape", p.shape)) for n, p in self.parameters.items()}
        self.slots = self._slots()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that holds the moments, inside DeepSpeed's wrapper if there is one."""
        return self.engine.optimizer.optimizer

    def masters(self) -> list[Tensor]:
        """This rank's float32 tensors (the optimizer's keys)."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Copies changed masters into the weights that the forward pass reads. Collective."""
        raise NotImplementedError

    def zero_gradients(self) -> None:
        """Forgets the gradients accumulated since the last step."""
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad.zero_()
        for buffer in [m.grad for m in self.masters() if m.grad is not None] + self._gradient_buffers():
            buffer.zero_()

    def _gradient_buffers(self) -> list[Tensor]:
        return []

    def _slots(self) -> dict[str, Slot]:
        raise NotImplementedError

    def full(self, tensors: list[Tensor], name: str) -> Tensor:
        """The whole parameter's values from tensors laid out like the masters: float32, on rank 0. Collective.

        Ranks hold disjoint parts, so a sum is exact.
        """
        shape = torch.Size(self.shapes[name])
        whole = torch.zeros(shape.numel(), dtype=torch.float32, device=self.engine.device)
        slot = self.slots[name]
        if slot.numel:
            whole[slot.start : slot.start + slot.numel] = self._part(tensors, slot).to(whole)
        if self.sharded:
            dist.reduce(whole, 0)
        return whole.view(shape)

    def assign(self, tensors: list[Tensor], name: str, value: Tensor) -> None:
        """Writes this rank's part of the whole parameter `value` into tensors laid out like the masters."""
        slot = self.slots[name]
        if slot.numel:
            part = self._part(tensors, slot)
            part.copy_(value.flatten()[slot.start : slot.start + slot.numel].to(part))

    def full_frozen(self, name: str) -> Tensor:
        """A frozen parameter's whole value in its own type. Collective."""
        parameter = self.frozen[name]
        with self._gathered(parameter, None):
            return parameter.detach().clone()

    def assign_frozen(self, name: str, value: Tensor) -> None:
        """Sets a frozen parameter. Collective."""
        parameter = self.frozen[name]
        with self._gathered(parameter, 0), torch.no_grad():
            parameter.copy_(value.to(parameter))

    def _gathered(self, parameter: nn.Parameter, modifier_rank: int | None):
        return deepspeed.zero.GatheredParameters([parameter], modifier_rank=modifier_rank)

    def moments(self) -> dict[str, list[Tensor]]:
        """{state name, e.g. "exp_avg": tensors laid out like the masters}; empty before the first step."""
        masters, state = self.masters(), self.optimizer.state
        first = state.get(masters[0], {})
        same = [k for k, v in first.items() if k != "step" and torch.is_tensor(v) and v.shape == masters[0].shape]
        return {key: [state[m][key] for m in masters] for key in sorted(same)}

    def prime(self) -> None:
        """Creates the optimizer's state by a step with zero gradients, after which masters and state are to be assigned."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        for master in self.masters():
            if not self.optimizer.state.get(master):
                self._empty_step(master)

    def set_step_count(self, steps: int, *, beside: int) -> None:
        """Tells the optimizer how many updates it has made (bias correction), of the model and of what is trained beside it."""
        masters, groups = self.masters(), self.optimizer.param_groups
        holders = [(self.optimizer.state[m], i in self.tensors_beside) for i, m in enumerate(masters)]
        for holder, is_apart in holders + [(group, group["apart"]) for group in groups]:
            count = beside if is_apart else steps
            if torch.is_tensor(holder.get("step")):
                holder["step"].fill_(count)
            elif "step" in holder:
                holder["step"] = count

    @cached_property
    def tensors_beside(self) -> set[int]:
        """Which of the masters hold what is trained beside the model; no master holds both."""
        groups = self.optimizer.param_groups
        return {i for i, m in enumerate(self.masters()) if groups[self._group_of(m)]["apart"]}

    def _empty_step(self, master: Tensor) -> None:
        groups = self.optimizer.param_groups
        gradient, before = master.grad, [g["params"] for g in groups]
        master.grad = torch.zeros_like(master)
        for position, group in enumerate(groups):
            group["params"] = [master] if position == self._group_of(master) else []
        self.optimizer.step()
        for group, params in zip(groups, before, strict=True):
            group["params"] = params
        master.grad = gradient

    def _group_of(self, master: Tensor) -> int:
        for position, group in enumerate(self.optimizer.param_groups):
            if any(p is master for p in group["params"]):
                return position
        return 0

    @staticmethod
    def _part(tensors: list[Tensor], slot: Slot) -> Tensor:
        return tensors[slot.tensor].detach().view(-1)[slot.offset : slot.offset + slot.numel]


class WholeShards(Shards):
    """Stage 0 in float32: the parameters themselves."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.engine.optimizer

    def masters(self) -> list[Tensor]:
        return list(self.parameters.values())

    def refresh(self) -> None:
        """Nothing to do: the masters are the weights."""

    def _slots(self) -> dict[str, Slot]:
        return {n: Slot(i, 0, 0, p.numel()) for i, (n, p) in enumerate(self.parameters.items())}


class CopiedShards(Shards):
    """Stage 0 in bfloat16: a float32 copy of every parameter on every rank."""

    def masters(self) -> list[Tensor]:
        return [master for group in self.engine.optimizer.fp32_groups for master in group]

    def refresh(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.masters()[self.slots[name].tensor].data)

    def _slots(self) -> dict[str, Slot]:
        position = {id(p): i for i, p in enumerate(p for g in self.engine.optimizer.fp16_groups for p in g)}
        return {n: Slot(position[id(p)], 0, 0, p.numel()) for n, p in self.parameters.items()}


class FragmentShards(Shards):
    """Stages 1 and 2: one flat slice of every parameter group a rank."""

    sharded = True

    def masters(self) -> list[Tensor]:
        optimizer = self.engine.optimizer
        flat = getattr(optimizer, "single_partition_of_fp32_groups", None)
        return list(flat if flat is not None else optimizer.fp32_groups_flat_partition)

    def refresh(self) -> None:
        self.engine.optimizer.update_lp_params()

    def _gradient_buffers(self) -> list[Tensor]:
        optimizer = self.engine.optimizer
        averaged = getattr(optimizer, "averaged_gradients", {}).values()
        return [g for group in averaged for g in group or []] + list(
            getattr(optimizer, "fp32_groups_gradients_flat", [])
        )

    def _slots(self) -> dict[str, Slot]:
        slots = {}
        for name, parameter in self.parameters.items():
            mapping = parameter._hp_mapping
            if mapping is None:
                slots[name] = Slot(0, 0, 0, 0)
                continue
            hp, lp = mapping.hp_fragment_address, mapping.lp_fragment_address
            slots[name] = Slot(mapping.param_group_index, hp.start, lp.start, lp.numel)
        return slots


class PartitionShards(Shards):
    """Stage 3: one slice of every parameter a rank, padded at its end, in flat sub-groups."""

    sharded = True

    def masters(self) -> list[Tensor]:
        return list(self.engine.optimizer.fp32_partitioned_groups_flat)

    def refresh(self) -> None:
        optimizer = self.engine.optimizer
        for sub_group in range(len(self.masters())):
            optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
        persistent = optimizer.persistent_parameters
        if persistent:
            persistent[0].partition(persistent)
            persistent[0].all_gather(persistent)

    def _gradient_buffers(self) -> list[Tensor]:
        buffer = getattr(self.engine.optimizer, "grad_partitions_flat_buffer", None)
        return [] if buffer is None else [buffer]

    def _slots(self) -> dict[str, Slot]:
        optimizer = self.engine.optimizer
        slots = {}
        for name, parameter in self.parameters.items():
            tensor, offset, numel = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = optimizer._get_param_partition_rank(parameter) * numel
            slots[name] = Slot(tensor, offset, start, max(0, min(numel, parameter.ds_numel - start)))
        return slots

    def _group_of(self, master: Tensor) -> int:
        position = next(i for i, m in enumerate(self.masters()) if m is master)
        return self.engine.optimizer.sub_group_to_group_id[position]


def shards_of(engine) -> Shards:
    """The Shards of a DeepSpeed engine.

    Raises SpecError for optimizers whose state lies outside the process (NVMe) or in a layout unknown here.
    """
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if getattr(optimizer, "swap_optimizer", False) or getattr(optimizer, "params_in_nvme_and_cpu", False):
        raise SpecError('deepspeed.zero_optimization: offload to "nvme" is not supported; offload to "cpu"')
    if getattr(optimizer, "partial_offload", 1.0) != 1.0 and stage == 3 and optimizer.offload_optimizer:
        raise SpecError("deepspeed.zero_optimization.offload_optimizer.ratio: only 1.0 is supported")
    if stage == 3:
        return PartitionShards(engine)
    if hasattr(optimizer, "single_partition_of_fp32_groups") or hasattr(optimizer, "fp32_groups_flat_partition"):
        return FragmentShards(engine)
    if hasattr(optimizer, "fp32_groups"):
        return CopiedShards(engine)
    if isinstance(optimizer, torch.optim.Optimizer):
        return WholeShards(engine)
    raise SpecError(
        f"deepspeed: {type(optimizer).__name__} at ZeRO stage {stage} is not supported; use stage 1, 2 or 3"
    )
