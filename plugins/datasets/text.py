"""Any text as sequences of tokens: documents packed to one length, a separator after each."""

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from di4c.contracts import Batch, DataSource, Draws, Split
from di4c.errors import DataError, SpecError
from di4c_plugins.datasets.decoders import Texts
from di4c_plugins.datasets.packing import Packing, Part
from di4c_plugins.datasets.text_documents import Division, Documents
from di4c_plugins.datasets.text_encoding import (
    DOCUMENT_END,
    Characters,
    Encoding,
    Normalisation,
    Subwords,
    alphabet_of,
    load_tokenizer,
)
from di4c_plugins.datasets.token_cache import TokenCache, cache_root, cached_text, cached_tokens, encoded

READING = 2
"""Rises where the same source is read as other tokens, so that no cache of an earlier reading is used."""


class PackedSplit(Split):
    """Sequences of a token cache."""

    def __init__(self, cache: TokenCache, packing: Packing, part: Part, wrapper: int | None):
        self.cache, self.packing, self.part, self.wrapper = cache, packing, part, wrapper

    def __len__(self) -> int:
        return self.packing.count(self.part)

    def batch(self, indices: Tensor, draws: Draws | None = None) -> Batch:
        start = self.packing.sequence(indices.cpu().numpy(), self.part) * self.packing.block
        tokens = self.cache.tokens[start[:, None] + np.arange(self.packing.block)]
        x_0 = torch.from_numpy(tokens.astype(np.int64))
        if self.wrapper is not None:
            edge = torch.full((len(x_0), 1), self.wrapper)
            x_0 = torch.cat([edge, x_0, edge], dim=1)
        return Batch(x_0)


class Text(DataSource):
    """Text from `path` (a file or folder: .txt, .md, .jsonl, .ndjson, .parquet, also packed) or from a `dataset` of the hub.

    length: D. tokenizer: "characters", a tokenizer.json, a folder with one or with GPT-2's vocab.json and merges.txt,
    or a hub name. separator: the token between documents (default: newline for characters, "<|endoftext|>" for
    tokenizers).
    wrap: every sequence begins and ends with the separator (as MDLM's and SDTT's models were trained).
    normalise, alphabet, most_characters: for characters; without an alphabet the training text's most frequent
    characters.
    A special token of the tokenizer that stands literally in the text is text. Prompts of unknown words are refused.
    held_out: the share of sequences in the split "test", in runs spread evenly over the text; none if test_path or
    test_split name a held-out source. most_tokens: read no further. documents: what a document is in a plain text file.

    Tokens are written once to a cache (`cache`, $DI4C_CACHE or ~/.cache/di4c/text) and read by memory map; the source
    is streamed, so neither has to fit in memory.
    """

    def __init__(
        self,
        *,
        length: int,
        path: str | None = None,
        test_path: str | None = None,
        dataset: str | None = None,
        configuration: str | None = None,
        train_split: str = "train",
        test_split: str | None = None,
        column: str = "text",
        documents: Division = "file",
        tokenizer: str = "characters",
        separator: str | None = None,
        normalise: Normalisation = "none",
        alphabet: str | None = None,
        most_characters: int = 128,
        wrap: bool = False,
        held_out: float = 0.05,
        most_tokens: int | None = None,
        cache: str | None = None,
    ):
        if (path is None) == (dataset is None):
            raise SpecError("data: name either `path` (a file or folder) or `dataset` (a hub name)")
        if most_characters < 2:
            raise SpecError(
                f"data.most_characters is {most_characters}; one is the separator, so at least 2 are needed"
            )
        if length < 3 or not 0 < held_out < 0.5:
            raise SpecError(
                f"data: length is {length} and held_out {held_out}; length ≥ 3 and 0 < held_out < 0.5 are needed"
            )
        self.num_positions, self.wrap, self.held_out = length, wrap, held_out
        self.most_tokens, self.cache = most_tokens, cache_root(cache)
        self.sources = {"train": Documents(path, dataset, configuration, train_split, column, documents)}
        if test_path is not None or test_split is not None:
            changes: dict[str, Any] = {"path": test_path} if test_path is not None else {"split": test_split}
            self.sources["test"] = replace(self.sources["train"], **changes)
        else:
            _refuse_mixed(self.sources["train"])
        self.encoding = self._encoding(tokenizer, separator, normalise, alphabet, most_characters)
        self.num_states = self.encoding.size

    def split(self, name: str) -> Split:
        if name not in ("train", "test"):
            raise DataError(f"text has no split {name!r}; its splits are 'train' and 'test'")
        wrapper = self.encoding.separator if self.wrap else None
        part: Part = "all" if "test" in self.sources else "train" if name == "train" else "test"
        cache = self._caches[name if part == "all" else "train"]
        return PackedSplit(cache, self._packing(cache), part, wrapper)

    def fingerprint(self) -> str:
        held_out = None if "test" in self.sources else self.held_out
        parts = [self.encoding.identity(), self.num_positions, self.wrap, held_out]
        parts += [self._caches[name].about["digest"] for name in sorted(self.sources)]
        return _digest(parts)

    def decode(self, x: Tensor) -> list[str]:
        """The texts of sequences x [n, D]."""
        return self.decoder().decode(x)

    def token_text(self, token: int) -> str:
        """What one token reads as, alone."""
        return self.encoding.token_text(token)

    def decoder(self) -> Texts:
        return Texts(self.encoding, self.num_positions, wrap=self.wrap)

    def _encoding(
        self,
        tokenizer: str,
        separator: str | None,
        normalise: Normalisation,
        alphabet: str | None,
        most_characters: int,
    ) -> Encoding:
        if tokenizer != "characters":
            if normalise != "none" or alphabet is not None:
                raise SpecError("data: normalise and alphabet belong to tokenizer: characters")
            return Subwords(
                load_tokenizer(tokenizer), separator=separator or DOCUMENT_END, source=f"data.tokenizer {tokenizer}"
            )
        separator = separator or "\n"
        if alphabet is None:
            alphabet = self._counted_alphabet(separator, normalise, most_characters)
        elif separator not in alphabet:
            alphabet = separator + alphabet
        return Characters(alphabet, separator=separator, normalise=normalise)

    def _counted_alphabet(self, separator: str, normalise: Normalisation, most: int) -> str:
        """The alphabet of the training text, counted once and kept with the caches."""
        if normalise == "letters":
            return alphabet_of([], separator, normalise, most)
        key = _digest([READING, self.sources["train"].identity(), separator, normalise, most])
        texts = (text for text, _ in self.sources["train"])
        return cached_text(self.cache / f"alphabet-{key}.json", lambda: alphabet_of(texts, separator, normalise, most))

    @cached_property
    def _caches(self) -> dict[str, TokenCache]:
        return {name: self._cache(source) for name, source in self.sources.items()}

    def _cache(self, source: Documents) -> TokenCache:
        named, identity = source.identity(), self.encoding.identity()
        folder = self.cache / f"tokens-{_digest([READING, named, identity, self.most_tokens])}"
        arrays = encoded(source.pieces(), self.encoding, self.most_tokens, source.named())
        return cached_tokens(folder, arrays, self.num_states, {"source": named})

    def _packing(self, cache: TokenCache) -> Packing:
        block = self.num_positions - 2 if self.wrap else self.num_positions
        return Packing(len(cache.tokens), block, self.held_out if "test" not in self.sources else 0.0)


def _refuse_mixed(source: Documents) -> None:
    """SpecError where the folder that is to be read whole has a folder of held-out text, which would be trained on."""
    own = source.own_splits()
    if own["test"] is not None:
        train = own["train"] or "the folder of the training text alone"
        raise SpecError(
            f"data.path {source.path}: holds a folder {own['test'].name} of held-out text, which would be mixed with the rest; "
            f"write path: {train}, and test_path: {own['test']}"
        )


def _digest(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
