"""Self-BLEU: how alike samples are, each scored against the others."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from di4c.contracts import DataSource, Generation, Metric
from di4c.errors import SpecError
from di4c_plugins.metrics.reference import evenly

EPSILON = 0.1


class SelfBleu(Metric):
    """`self_bleu`, 0 to 100: BLEU-4 of every sample against the others of its group, averaged; 100 is all the same.

    Units are tokens, each decoded on its own (Hayakawa et al. 2025); a text data set that can say what a token reads as
    (`token_text`) is asked, so that tokens that read alike count as the same. Groups hold `group` samples.

    prefix > 0 measures continuations instead: from each of `prefixes` held-out examples the first `prefix` tokens are
    kept, `group` continuations are sampled, and the whole sequences of `length` tokens, prefix included, are compared
    (the paper: prefix 50, length 100, group 5, 256 prefixes). Needs a process with a mask state.
    """

    def __init__(
        self,
        *,
        data: DataSource,
        group: int = 5,
        prefix: int = 0,
        prefixes: int = 256,
        length: int | None = None,
        batch_size: int = 80,
    ):
        length = length or data.num_positions
        if group < 2 or not 0 <= prefix < length <= data.num_positions:
            raise SpecError(
                f"metric self-bleu: group {group}, prefix {prefix}, length {length}; need group ≥ 2 and "
                f"0 ≤ prefix < length ≤ {data.num_positions} (the data's positions)"
            )
        self.data, self.group, self.prefix, self.prefixes, self.length = data, group, prefix, prefixes, length
        self.batch_size = max(batch_size // group, 1) * group
        self.needs_samples = prefix == 0

    def __call__(self, generation: Generation) -> dict[str, float]:
        x = generation.x_0 if self.prefix == 0 else self.continuations(generation)
        name = "self_bleu" if self.prefix == 0 else f"self_bleu_prefix{self.prefix}"
        return {name: self.of(x)}

    def of(self, x: Tensor) -> float:
        """Mean self-BLEU of consecutive groups of the samples x [n, D]; a last group that is not full is left out."""
        sentences = [[self.unit(token) for token in row] for row in x.tolist()]
        groups = [sentences[i : i + self.group] for i in range(0, len(sentences) - self.group + 1, self.group)]
        if not groups:
            raise SpecError(f"metric self-bleu: {len(sentences)} samples do not fill one group of {self.group}")
        return 100 * sum(sum(self_bleu(group)) / len(group) for group in groups) / len(groups)

    def unit(self, token: int) -> Hashable:
        """What a token is compared by."""
        token_text = getattr(self.data, "token_text", None)
        return token if token_text is None else token_text(token)

    @torch.no_grad()
    def continuations(self, generation: Generation) -> Tensor:
        """Samples that begin like held-out examples, `group` in a row an example: [prefixes·group, length]."""
        process = generation.sampler.process
        test = self.data.checked_split("test", process)
        if process.mask_index is None:
            raise SpecError("metric self-bleu: continuing a prefix needs a process with a mask state")
        known = test.batch(evenly(len(test), self.prefixes)).x_0[:, : self.prefix].repeat_interleave(self.group, dim=0)
        parts = []
        draws = generation.draws.rows(0, len(known)).child("continuations")
        for start in range(0, len(known), self.batch_size):
            part = known[start : start + self.batch_size]
            rows = draws.rows(start, start + len(part))
            x_1 = process.prior(self.length, rows.child("prior"))
            x_1[:, : self.prefix] = part.to(x_1.device)
            calls = iter(range(10**9))

            def denoise(x_t, t, cond, rows=rows, calls=calls):
                return generation.components(x_t, t, cond, rows.child("lambda", next(calls)), 1)

            parts.append(generation.sampler.sample(denoise, x_1, generation.steps, None, rows.child("sampler")).cpu())
        return torch.cat(parts)


def self_bleu(sentences: Sequence[Sequence[Hashable]], order: int = 4) -> list[float]:
    """BLEU in [0, 1] of each sentence against all the others."""
    return [bleu(sentence, [*sentences[:i], *sentences[i + 1 :]], order) for i, sentence in enumerate(sentences)]


def bleu(candidate: Sequence[Hashable], references: Sequence[Sequence[Hashable]], order: int = 4) -> float:
    """min(1, e^(1 − r/c)) · ∏_n p_n^(1/order), p_n the clipped n-gram precisions (Papineni et al. 2002).

    r is the reference length closest to the candidate's length c (the shorter of two). A precision without a match
    counts as 0.1 over the number of n-grams (method 1 of Chen & Cherry 2014); without any common token BLEU is 0.
    """
    precisions = [clipped_precision(candidate, references, n) for n in range(1, order + 1)]
    if not candidate or precisions[0][0] == 0:
        return 0.0
    log_mean = sum(math.log((hits or EPSILON) / total) for hits, total in precisions) / order
    closest = min((abs(len(r) - len(candidate)), len(r)) for r in references)[1]
    log_brevity = min(0.0, 1 - closest / len(candidate))
    return math.exp(log_brevity + log_mean)


def clipped_precision(
    candidate: Sequence[Hashable], references: Sequence[Sequence[Hashable]], n: int
) -> tuple[int, int]:
    """(n-grams found in a reference, each counted as often as there at most; number of n-grams, at least 1)."""
    counts = ngrams(candidate, n)
    allowed: Counter = Counter()
    for reference in references:
        allowed |= ngrams(reference, n)
    return (counts & allowed).total(), max(counts.total(), 1)


def ngrams(sequence: Sequence[Hashable], n: int) -> Counter:
    """How often each n-gram stands in the sequence."""
    return Counter(zip(*(sequence[i:] for i in range(n)), strict=False))
