"""Activations and FLOPs of the student's passes, traced on the meta device."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from di4c.planning.live import LiveBytes
from di4c.planning.sizes import Skeleton


@dataclass(frozen=True)
class Trace:
    """Bytes and FLOPs of one training pass over B examples with M components each.

    saved: held between forward and backward pass. peak, peak_without_gradients: the backbone's whole pass. loss: what the
    loss keeps of the components' features, their gradient, and with a modulation the modulated ones as well. flops: forward and
    backward, without readout.
    """

    saved: int
    peak: int
    peak_without_gradients: int
    loss: int
    flops: int


def training_trace(
    networks: Skeleton, examples: int, components: int, *, bf16: bool, at_a_time: int | None = None
) -> Trace:
    """The Trace of a forward and backward pass of what is trained, with at most `at_a_time` components' activations at once."""
    module = networks.trained.train()
    module.to(torch.bfloat16 if bf16 else torch.float32)
    module.zero_grad()
    with LiveBytes(module) as live:
        features, copies = _features(networks, examples, components, at_a_time)
        saved = live.now
        size = copies * features.numel() * features.element_size()
        features.sum().backward()
        del features
    module.zero_grad()
    with FlopCounterMode(display=False) as flops:  # apart: it keeps tensors of a recomputed pass alive
        _features(networks, examples, components, at_a_time)[0].sum().backward()
    module.zero_grad()
    return Trace(saved, live.peak, live.peak_without_gradients, size, flops.get_total_flops())


@torch.no_grad()
def inference_trace(networks: Skeleton, examples: int, components: int, *, at_a_time: int | None = None) -> Trace:
    """The Trace of a forward pass without gradient; `saved` are the features."""
    module = networks.trained.eval()
    with LiveBytes(module) as live, FlopCounterMode(display=False) as flops:
        features, _ = _features(networks, examples, components, at_a_time)
        size = features.numel() * features.element_size()
    return Trace(size, live.peak, live.peak, size, flops.get_total_flops())


def _features(networks: Skeleton, examples: int, components: int, at_a_time: int | None) -> tuple[Tensor, int]:
    """The features before the loss, [B·M, D, H] or before a modulation [B, D, H], and how many tensors of their size the loss adds."""
    positions, classes = networks.shape.num_positions, networks.shape.num_classes
    x_t = torch.zeros(examples, positions, dtype=torch.int64, device="meta")
    t = torch.zeros(examples, device="meta")
    cond = None if classes is None else torch.zeros(examples, dtype=torch.int64, device="meta")
    if networks.student is None:
        return networks.teacher.backbone(x_t, t, cond), 1
    lam = torch.zeros(examples, components, networks.latent.dim, device="meta")
    prediction = networks.student.predict(x_t, t, cond, lam, at_a_time=at_a_time)
    return prediction.features, 1 if prediction.modulation is None else 1 + 2 * components
