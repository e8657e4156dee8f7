"""The share of letters in words of the training text: spelling, without any language model."""

import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from di4c.contracts import DataSource, Draws, Generation, Metric
from di4c.errors import SpecError
from di4c_plugins.metrics.reference import reference

WORD = re.compile(r"[^\W\d_]+")


class KnownWords(Metric):
    """`known_word_share`: of all letters of the samples the share in words that stand at least `min_count` times in the training text.

    A word is an unbroken run of letters, in lower case. One that the edge of a sequence cuts is known if a known word begins, or ends, so.
    The vocabulary is of the words inside at most `max_references` training sequences. The reference value is the held-out text's,
    which has words that the training text has not. Repeating one word is not told: n-gram distances and entropy stand beside it.
    """

    higher_is_better = True

    def __init__(self, *, data: DataSource, min_count: int = 1, max_references: int = 100_000):
        if min_count < 1 or max_references < 1:
            raise SpecError(
                f"metric known-words: min_count is {min_count}, max_references {max_references}; both are at least 1"
            )
        self.data, self.min_count, self.max_references = data, min_count, max_references

    def __call__(self, generation: Generation) -> dict[str, float]:
        return {"known_word_share": self.share(self._texts(generation.x_0.cpu()))}

    def reference_values(self, num_samples: int, draws: Draws) -> dict[str, float]:
        return {"known_word_share": self.share(self._texts(reference(self.data, "test", num_samples)))}

    def share(self, texts: Iterable[str]) -> float:
        """Letters in known words among all letters of the texts; 0 where there are none."""
        known = total = 0
        for text in texts:
            for word in WORD.finditer(text):
                length = word.end() - word.start()
                total += length
                known += length * self._is_known(word.group().lower(), word.start() == 0, word.end() == len(text))
        return known / max(total, 1)

    def _is_known(self, word: str, cut_before: bool, cut_after: bool) -> bool:
        whole, beginnings, endings = self._vocabulary
        if cut_before and cut_after:
            return any(word in known for known in whole)
        return word in (endings if cut_before else beginnings if cut_after else whole)

    @cached_property
    def _vocabulary(self) -> tuple[set[str], set[str], set[str]]:
        """The words, and all their beginnings and endings, the words themselves among them."""
        counts: Counter[str] = Counter()
        for text in self._texts(reference(self.data, "train", self.max_references)):
            inside = (w for w in WORD.finditer(text) if w.start() > 0 and w.end() < len(text))
            counts.update(word.group().lower() for word in inside)
        whole = {word for word, count in counts.items() if count >= self.min_count}
        beginnings = {word[: k + 1] for word in whole for k in range(len(word))}
        return whole, beginnings, {word[k:] for word in whole for k in range(len(word))}

    def _texts(self, x) -> list[str]:
        texts = self._decoder.decode(x)
        if not all(isinstance(text, str) for text in texts):
            raise SpecError("metric known-words: the samples of these data are no text")
        return texts

    @cached_property
    def _decoder(self):
        decoder = self.data.decoder()
        if decoder is None:
            raise SpecError("metric known-words: these data do not say what samples read as")
        return decoder
