"""A network of the transformers library as a backbone.

x_t ─ [before] x_t [after] ─ input embeddings ─┐
                                   λ tokens ───┴─ network ─ cut to x_t (shifted by one where asked) ─ features ─ output head
"""

import inspect
from collections.abc import Callable, Sequence

import torch
from einops import repeat
from torch import Tensor, nn

from di4c.contracts import AffineOutputHead, Backbone, Context, IdentityOutputHead, evaluating
from di4c.errors import SpecError
from di4c_plugins.backbones.hf_attention import with_dropout_modules

POSITION_TABLES = ("position_embeddings", "embed_positions")
"""How transformers' classes call a table of positions."""


class MaskedLM(Backbone):
    """A transformers network that gives one feature vector a token; it is told neither the time nor a label.

    readout: what maps its features to logits; None if they are the logits. before, after: tokens that frame every sequence
    (BERT's [CLS] and [SEP]). shifted: position d is read from the hidden state of d − 1 (Dream's convention, left from
    its autoregressive weights); the first position from its own, or from the last token of `before`.
    λ tokens stand at the end, with the next positions; `accepts` holds "tokens" where the network takes embeddings of the
    features' width.
    """

    reads_time = False

    def __init__(
        self,
        network: nn.Module,
        num_states: int,
        *,
        readout: nn.Linear | None,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        shifted: bool = False,
    ):
        super().__init__()
        with_dropout_modules(network)
        self.network, self.num_states, self.shifted = network, num_states, shifted
        self.readout: nn.Module = (
            WholeLogits(num_states) if readout is None else VocabularyOutputHead(readout, num_states)
        )
        self.width = num_states if readout is None else readout.in_features
        self.depth = int(getattr(network.config, "num_hidden_layers", 0))
        self.frame = (len(before), len(after))
        self.register_buffer("before", torch.tensor(list(before), dtype=torch.int64, device="cpu"), persistent=False)
        self.register_buffer("after", torch.tensor(list(after), dtype=torch.int64, device="cpu"), persistent=False)
        embedding_width = getattr(network.get_input_embeddings(), "embedding_dim", None)
        takes_embeddings = "inputs_embeds" in inspect.signature(network.forward).parameters
        if takes_embeddings and readout is not None and embedding_width == self.width:
            self.accepts = frozenset({"tokens"})
        self.exact = {name: table for name, table in network.named_buffers() if table.is_floating_point()}

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Tensor:
        framed = self._framed(x_t)
        if context is None or context.tokens is None:
            return self._cut(self._hidden(input_ids=framed), x_t.shape[1])
        h = repeat(self.network.get_input_embeddings()(framed), "b d h -> (b m) d h", m=context.components)
        h = torch.cat([h, context.tokens.to(h)], dim=1)
        return self._cut(self._hidden(inputs_embeds=h), x_t.shape[1])

    def check_length(self, num_positions: int, extra: int = 1) -> None:
        """Raises SpecError if the network has no position for D tokens, their frame and `extra` λ tokens."""
        most = usable_positions(self.network)
        framed = num_positions + sum(self.frame)
        if most is not None and framed + extra > most:
            raise SpecError(
                f"teacher: {framed} tokens a sequence and {extra} for λ, but the network has {most} positions; shorten data.length"
            )

    def _apply(self, fn: Callable, recurse: bool = True) -> "MaskedLM":
        """As nn.Module's, but tables (rotary frequencies) keep their precision when the weights are cast to bfloat16."""
        super()._apply(fn, recurse)
        for name, table in self.exact.items():
            parent, _, last = name.rpartition(".")
            owner = self.network.get_submodule(parent)
            setattr(owner, last, table.to(getattr(owner, last).device))
        return self

    def _framed(self, x_t: Tensor) -> Tensor:
        """x_t [B, D] between `before` and `after`."""
        if not any(self.frame):
            return x_t
        size = len(x_t)
        return torch.cat(
            [self.before.to(x_t.device).expand(size, -1), x_t, self.after.to(x_t.device).expand(size, -1)], dim=1
        )

    def _hidden(self, **inputs: Tensor) -> Tensor:
        output = self.network(**inputs, return_dict=True)
        logits = getattr(output, "logits", None)
        return output.last_hidden_state if logits is None else logits

    def _cut(self, h: Tensor, positions: int) -> Tensor:
        """The hidden states that x_t's positions are read from: [B·M, D, H]."""
        begin = self.frame[0]
        if not self.shifted:
            return h[:, begin : begin + positions]
        if begin:
            return h[:, begin - 1 : begin - 1 + positions]
        return torch.cat([h[:, :1], h[:, : positions - 1]], dim=1)


def usable_positions(network: nn.Module) -> int | None:
    """The length of the longest sequence that a network takes; None if its configuration names no bound.

    Tables with a padding row (RoBERTa's, MPNet's, ESM's) are read from the row after it: the rows up to there are no positions.
    """
    stated = getattr(network.config, "max_position_embeddings", None)
    bounds = [stated] if isinstance(stated, int) else []
    for name, table in network.named_modules():
        padding, weight = getattr(table, "padding_idx", None), getattr(table, "weight", None)
        if name.endswith(POSITION_TABLES) and padding is not None and weight is not None:
            bounds.append(weight.shape[0] - padding - 1)
    return min(bounds, default=None)


class VocabularyOutputHead(AffineOutputHead):
    """A network's output layer, with its own parameters (they may be tied to the embeddings); logits of the first S states.

    Vocabularies are often padded to a round number: the rows beyond S are states that cannot occur.
    """

    def __init__(self, layer: nn.Linear, num_states: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.num_states = num_states
        self.weight, self.bias = layer.weight, layer.bias

    def logits(self, h: Tensor, positions: Tensor | None) -> Tensor:
        return super().logits(h, positions)[..., : self.num_states]


class WholeLogits(IdentityOutputHead):
    """The features are the logits, of which the first S count."""

    def __init__(self, num_states: int):
        super().__init__()
        self.num_states = num_states

    def forward(self, h: Tensor, positions: Tensor, x_t: Tensor) -> Tensor:
        return h[..., : self.num_states]


def split_output_head(model: nn.Module) -> nn.Linear | None:
    """The last linear layer of a masked language model, taken out of it so that the model gives that layer's inputs.

    None, and the model as it was, if its logits are not that layer's output (a further bias, a product of two matrices):
    the check is one forward pass over two tokens, so the weights must be there.
    """
    layer = model.get_output_embeddings()
    name = next((n for n, module in model.named_modules() if module is layer), None)
    if type(layer) is not nn.Linear or name is None:
        return None
    probe = torch.tensor([[0, 1]], device=layer.weight.device)
    with evaluating(model), torch.no_grad():
        expected = model(input_ids=probe).logits
        model.set_submodule(name, nn.Identity())
        same = _same_logits(model, layer, probe, expected)
    if not same:
        model.set_submodule(name, layer)
    return layer if same else None


def _same_logits(model: nn.Module, layer: nn.Linear, probe: Tensor, expected: Tensor) -> bool:
    try:
        features = model(input_ids=probe).logits
    except RuntimeError:  # what follows the layer does not take its inputs
        return False
    if features.shape[-1] != layer.in_features:
        return False
    found = layer(features)
    return found.is_meta or torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
