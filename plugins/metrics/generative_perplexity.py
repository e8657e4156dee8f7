"""Generative perplexity: how likely samples are to a causal language model, with their entropy beside it."""

import math
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from di4c.contracts import DataSource, Draws, Generation, Metric
from di4c.errors import DataError, SpecError
from di4c_plugins.metrics.reference import reference, subset


class GenerativePerplexity(Metric):
    """exp of the judge's mean negative log-likelihood of the samples, per token of the judge.

    judge: a causal language model for transformers, a local folder or a hub name (the paper: gpt2-large); taken from
        `eval.judge` unless given here.
    wrap: "none" scores a sequence from its second token on, as published; "bos" puts the judge's first token before it
        and scores all.
    retokenize: decode the samples and encode them for the judge, needed where the vocabularies differ; without it the
        tokens are handed over as they are.
    length: score the first so many tokens only (null: all).

    Low perplexity alone is no quality: repetition is likely. So `sequence_entropy_nats`, the mean entropy of a
    sequence's own token frequencies, always stands beside it, and how the scoring was done (`judge_wrap_bos` 0 or 1,
    `judge_tokens` a sequence). float32 Gumbel draws lower both (Zheng et al. 2024); this project's samplers draw in
    float64.
    """

    higher_is_better = False
    guards = frozenset({"sequence_entropy_nats", "judge_wrap_bos", "judge_tokens"})

    def __init__(
        self,
        *,
        data: DataSource,
        judge: str | None = None,
        wrap: Literal["none", "bos"] = "none",
        retokenize: bool = False,
        length: int | None = None,
        batch_size: int = 8,
        device: str | None = None,
    ):
        if judge is None:
            raise SpecError(
                "metric generative-perplexity: name a judge (eval.judge, or the metric's option judge), e.g. gpt2-large"
            )
        if retokenize and not hasattr(data, "decode"):
            raise SpecError(
                f"metric generative-perplexity: retokenize needs text data, and {type(data).__name__} cannot decode"
            )
        self.data: Any = data
        self.judge, self.wrap, self.retokenize = judge, wrap, retokenize
        self.length, self.batch_size, self.device = length, batch_size, device

    def __call__(self, generation: Generation) -> dict[str, float]:
        return self.of(generation.x_0, self.device or generation.draws.device)

    def reference_values(self, num_samples: int, draws: Draws) -> dict[str, float]:
        train = reference(self.data, "train", max(num_samples, 10_000))
        return self.of(subset(train, num_samples, draws), self.device or draws.device)

    @torch.no_grad()
    def of(self, x: Tensor, device: torch.device | str) -> dict[str, float]:
        sequences = [self.tokens(row) for row in x.cpu()]
        scorable = [tokens for tokens in sequences if len(tokens) > 1]  # decoded to nothing, a sample has no token
        total, scored = 0.0, 0
        for start in range(0, len(scorable), self.batch_size):
            nll, count = self._score(scorable[start : start + self.batch_size], device)
            total, scored = total + nll, scored + count
        if scored == 0:
            raise DataError("metric generative-perplexity: the samples have no token to score")
        return {
            "generative_perplexity": math.exp(min(total / scored, 700.0)),
            "judge_nll_nats_per_token": total / scored,
            "sequence_entropy_nats": sum(sequence_entropy(row) for row in x.cpu()) / len(x),
            "judge_wrap_bos": float(self.wrap == "bos"),
            "judge_tokens": scored / len(sequences),
        }

    def tokens(self, row: Tensor) -> list[int]:
        """What the judge is given of a sample [D]."""
        ids = self._tokenizer(self.data.decode(row[None])[0])["input_ids"] if self.retokenize else row.tolist()
        ids = ids[: self.length]
        if not self.retokenize and max(ids) >= self._model.config.vocab_size:
            raise DataError(
                f"metric generative-perplexity: token {max(ids)} is none of the judge's "
                f"{self._model.config.vocab_size}; set retokenize: true"
            )
        return [self._first_token, *ids] if self.wrap == "bos" else ids

    def _score(self, sequences: list[list[int]], device: torch.device | str) -> tuple[float, int]:
        """(summed −log p of the tokens after the first, nats; their number); padded on the right, so unseen."""
        ids = pad_sequence([torch.tensor(s, dtype=torch.int64) for s in sequences], batch_first=True).to(device)
        real = pad_sequence([torch.ones(len(s), dtype=torch.int64) for s in sequences], batch_first=True).to(device)
        logits = self._model.to(device)(input_ids=ids, attention_mask=real).logits[:, :-1].float()
        log_p = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1).double()
        counted = real[:, 1:].bool()
        return float(-log_p[counted].sum()), int(counted.sum())

    @cached_property
    def _model(self):
        from transformers import AutoModelForCausalLM

        return self._loaded(AutoModelForCausalLM).eval().requires_grad_(False)

    @cached_property
    def _tokenizer(self):
        from transformers import AutoTokenizer

        return self._loaded(AutoTokenizer)

    @property
    def _first_token(self) -> int:
        first = self._model.config.bos_token_id
        if first is None:
            raise SpecError(f"metric generative-perplexity: judge {self.judge} has no first token; set wrap: none")
        return int(first)

    def _loaded(self, kind):
        try:
            return kind.from_pretrained(self.judge)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"metric generative-perplexity: cannot load judge {self.judge}: {reason}") from error


def sequence_entropy(row: Tensor) -> float:
    """−Σ_s f(s) log f(s) with the frequencies f of the states in one sequence [D]: nats."""
    counts = row.unique(return_counts=True)[1].double()
    share = counts / counts.sum()
    return float(-(share * share.log()).sum())
