"""Attention of transformers' networks whose dropout is a module, so that in training its masks belong to examples."""

from typing import Any

import torch
from torch import Tensor, nn

NAME = "sdpa-with-dropout-modules"
"""Under this name transformers knows the attention below."""


def with_dropout_modules(network: nn.Module) -> None:
    """Gives every attention layer of a network with attention dropout a module for it, in place.

    transformers hands a probability to SDPA, which draws for the batch as it stands. Networks that attend by code of their own are
    left as they are.
    """
    config = network.config
    stated = [
        value
        for key, value in config.to_dict().items()
        if "att" in key and "drop" in key and isinstance(value, int | float)
    ]
    if not any(stated) or getattr(config, "_attn_implementation", None) != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    for module in list(network.modules()):
        if "Attention" in type(module).__name__:
            module.weights_dropout = nn.Dropout(max(stated))
    network.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """softmax(q·kᵀ·scaling + mask)·v [B, N, heads, c] with dropout of the weights; as transformers' SDPA where nothing is dropped."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not dropout:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **options
        )
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and causal:
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attention_mask is not None:
        scores = (
            scores.masked_fill(~attention_mask, -torch.inf)
            if attention_mask.dtype == torch.bool
            else scores + attention_mask
        )
    if module.weights_dropout.p != dropout:  # a layer with a probability of its own
        module.weights_dropout.p = dropout
    return (module.weights_dropout(scores.softmax(-1)) @ value).transpose(1, 2).contiguous(), None
