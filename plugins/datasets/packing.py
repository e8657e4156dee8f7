"""Which stretch of a long sequence of tokens is example i of a split."""

from typing import Literal

import numpy as np

from di4c.errors import DataError

Part = Literal["train", "test", "all"]


class Packing:
    """Consecutive blocks of `block` tokens; a last one that is not full is left out.

    Of every 1/held_out runs of blocks the middle one is held out, so that both parts are spread over the whole text
    while neighbours in the text are mostly on the same side. held_out = 0: no such division.
    """

    def __init__(self, tokens: int, block: int, held_out: float):
        self.block, self.blocks = block, tokens // block
        self.period = round(1 / held_out) if held_out else 1
        if self.blocks < self.period:
            raise DataError(
                f"the text has {tokens} tokens, {self.blocks} sequences of {block}; at least {self.period} are needed"
                + (" for a held-out share of them" if held_out else "")
            )
        self.run = min(max(self.blocks // (10 * self.period), 1), 64)
        self.held = self.period // 2
        self.rounds = self.blocks // (self.run * self.period)

    def count(self, part: Part) -> int:
        held_out = self.rounds * self.run if self.period > 1 else 0
        return {"all": self.blocks, "test": held_out, "train": self.blocks - held_out}[part]

    def sequence(self, index: np.ndarray, part: Part) -> np.ndarray:
        """The block that is example `index` [B] of the part: [B]."""
        if part == "all" or self.period == 1:
            return index
        if part == "test":
            return (index // self.run * self.period + self.held) * self.run + index % self.run
        kept = self.run * (self.period - 1)
        round_, inside = index // kept, index % kept
        skipped = np.where(inside >= self.held * self.run, self.run, 0)
        last = self.rounds * kept
        tail = self.rounds * self.run * self.period + index - last
        return np.where(index < last, round_ * self.run * self.period + inside + skipped, tail)
