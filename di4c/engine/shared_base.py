"""Teacher and student on one copy of the weights: the student is the teacher's network with low-rank adapters.

    h = W x               the teacher
    h = W x + (α/r) B A x the student: A, B trained, W frozen        (LoRA, Hu et al. 2022)

What the base holds is no part of the student's state dict, so that checkpoints, averages and exports hold adapters and head
alone. Under ZeRO the base carries neither gradients nor optimizer state, and stage 3 shards it for both.
"""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from di4c.contracts import Backbone, Context, Teacher, evaluating
from di4c.errors import CheckpointError, SpecError

DIGEST = "base_digest"
STUDENTS = "default"
"""The name of the student's adapters."""
SAMPLED = 512
"""Numbers of a tensor that enter the base's digest."""


def share_base(teacher: Teacher, *, rank: int, targets: Sequence[str], alpha: float, dropout: float = 0.0) -> Backbone:
    """The teacher's own backbone with adapters, frozen but for them; the teacher predicts without them from now on.

    targets: names of linear layers, or ends of them ("query" for every …query). Raises SpecError where one names none, or the
    output head, which teacher and student share as it is.
    """
    backbone = teacher.backbone
    if type(backbone).for_student is not Backbone.for_student:
        raise SpecError(
            f"student.lora: {type(backbone).__name__} adds layers of its own to a student, so its weights cannot be shared"
        )
    layers = _layers(backbone, targets)
    backbone.requires_grad_(False)
    digest = base_digest(backbone)
    _inject(backbone, layers, rank, alpha, dropout)
    backbone.replayable = False  # a pass depends on which adapters are on
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    base = [name for name in backbone.state_dict() if name not in trained]
    backbone.register_buffer(DIGEST, digest)
    _leave_out(backbone, base)
    teacher.backbone = WithoutAdapters(backbone)
    return backbone


class OnSharedBase(Backbone):
    """A backbone seen another way than its student sees it. Holds no parameters of its own: they are the student's."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.width, self.depth = backbone.width, backbone.depth
        self.embedding_width, self.accepts = backbone.embedding_width, backbone.accepts
        self.reads_time = backbone.reads_time
        self._shared = (backbone, _adapted(backbone))

    @property
    def readout(self) -> nn.Module:
        """The output head, which has no adapters."""
        return self._shared[0].readout

    def for_student(self) -> Backbone:
        raise SpecError("student.lora: the teacher's weights are already shared with a student")


class WithoutAdapters(OnSharedBase):
    """A backbone as it was before its adapters, in evaluation mode."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Tensor:
        backbone, layers = self._shared
        # peft's own switch also turns requires_grad of the adapters off and on, between forward and backward pass
        with _changed(layers, "_disable_adapters", inside=True, outside=False), evaluating(backbone):
            return backbone(x_t, t, cond, context)

    def with_adapter(self, name: str) -> "WithAdapter":
        """The same weights with further adapters of that name beside the student's: of the same layers, rank, scale and dropout.

        Its parameters are the backbone's "….lora_A.NAME.…" and "….lora_B.NAME.…".
        """
        backbone, layers = self._shared
        if getattr(backbone, "recompute", False):  # a recomputed block would find the student's adapters in place
            raise SpecError("teacher.backbone.recompute: not with a second network on a shared base (student.lora)")
        named = [key for key, module in backbone.named_modules() if any(module is layer for layer in layers)]
        first, own = layers[0], {"rank": layers[0].r[STUDENTS], "alpha": layers[0].lora_alpha[STUDENTS]}
        _inject(backbone, named, **own, dropout=getattr(first.lora_dropout[STUDENTS], "p", 0.0), name=name)
        for layer in layers:
            layer._active_adapter = [STUDENTS]
        for key, parameter in backbone.named_parameters():
            if ".lora_" in key:  # peft makes those of one name trainable only
                parameter.requires_grad_(True)
        return WithAdapter(backbone, name)


class WithAdapter(OnSharedBase):
    """A backbone with the adapters of a name in place of the student's."""

    def __init__(self, backbone: Backbone, name: str):
        super().__init__(backbone)
        self.name = name

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Tensor:
        backbone, layers = self._shared
        with _changed(layers, "_active_adapter", inside=[self.name], outside=[STUDENTS]):
            return backbone(x_t, t, cond, context)


def base_digest(module: nn.Module) -> Tensor:
    """A digest of names, shapes and some numbers of every tensor: [4] int64 (zeros on the meta device)."""
    digest = hashlib.blake2b(digest_size=32)
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            return torch.zeros(4, dtype=torch.int64, device="cpu")
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // SAMPLED)].float().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + some.numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.int64)


def _layers(backbone: Backbone, targets: Sequence[str]) -> list[str]:
    """The full names of the linear layers that the targets name."""
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    inside = [name for name in linear if name.partition(".")[0] != "readout"]
    found: list[str] = []
    for target in targets:
        named = [name for name in inside if name == target or name.endswith(f".{target}")]
        if not named:
            ends = sorted({name.rpartition(".")[2] for name in inside})
            raise SpecError(
                f"student.lora.targets: {target!r} names no linear layer of the backbone; names end in {', '.join(ends)}"
            )
        found += named
    return sorted(set(found))


def _inject(
    backbone: Backbone, layers: list[str], rank: int, alpha: float, dropout: float, name: str = STUDENTS
) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SpecError("student.lora needs peft: pip install 'di4c[lora]'") from error
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=layers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # the second adapters are meant
        inject_adapter_in_model(config, backbone, adapter_name=name)


def _adapted(backbone: nn.Module) -> list[nn.Module]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in backbone.modules() if isinstance(module, BaseTunerLayer)]


@contextlib.contextmanager
def _changed(layers: list[nn.Module], name: str, *, inside: Any, outside: Any) -> Iterator[None]:
    """The layers with an attribute of peft's that is another one inside."""
    try:
        for layer in layers:
            setattr(layer, name, inside)
        yield
    finally:
        for layer in layers:
            setattr(layer, name, outside)


def _leave_out(backbone: Backbone, base: list[str]) -> None:
    """Keeps the base's tensors out of the state dict; loading misses none of them, and checks that the base is the same."""
    endings = tuple(f".{name}" for name in base)

    def saved(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
        for name in base:
            state.pop(prefix + name, None)

    def checked(module: nn.Module, state: dict, prefix: str, *rest: object) -> None:
        found = state.get(prefix + DIGEST)
        if found is not None and not torch.equal(found.cpu(), getattr(module, DIGEST).cpu()):
            raise CheckpointError("the adapters were trained on another base than the one that teacher names")

    def loaded(module: nn.Module, incompatible) -> None:
        kept = [key for key in incompatible.missing_keys if key not in base and not key.endswith(endings)]
        incompatible.missing_keys[:] = kept

    backbone.register_state_dict_post_hook(saved)
    backbone.register_load_state_dict_pre_hook(checked)
    backbone.register_load_state_dict_post_hook(loaded)
