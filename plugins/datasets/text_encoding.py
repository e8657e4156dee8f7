"""Text ↔ tokens: by characters, or by a tokenizer of the `tokenizers` library."""

import hashlib
import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from di4c.errors import DataError

Normalisation = Literal["none", "lowercase", "letters"]
DOCUMENT_END = "<|endoftext|>"


class Encoding(ABC):
    """size: number of tokens. separator: the token that stands between documents."""

    size: int
    separator: int

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text."""

    def known(self, text: str) -> list[int]:
        """The tokens of a text that must not lose anything, a prompt. Raises DataError where characters have no token."""
        return self.encode([text])[0]

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a sequence of tokens."""

    @abstractmethod
    def token_text(self, token: int) -> str:
        """What one token reads as, alone."""

    @abstractmethod
    def identity(self) -> str:
        """A digest of the vocabulary."""


class Characters(Encoding):
    """One token a character of `alphabet`, the separator among them; other characters are left out."""

    def __init__(self, alphabet: str, *, separator: str = "\n", normalise: Normalisation = "none"):
        if separator not in alphabet or len(separator) != 1:
            raise DataError(f"data.separator: {separator!r} is not a character of the alphabet {alphabet!r}")
        if len(set(alphabet)) != len(alphabet):
            raise DataError(f"data.alphabet: {alphabet!r} has a character twice")
        self.alphabet, self.normalise, self.size = alphabet, normalise, len(alphabet)
        self.index = {character: i for i, character in enumerate(alphabet)}
        self.separator = self.index[separator]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        index = self.index
        return [[index[c] for c in normalised(text, self.normalise) if c in index] for text in texts]

    def known(self, text: str) -> list[int]:
        lost = dict.fromkeys(c for c in normalised(text, self.normalise) if c not in self.index)
        if lost:
            raise DataError(f"prompt {text!r}: no token for {', '.join(map(repr, lost))}; the alphabet is {self.alphabet!r}")
        return self.encode([text])[0]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.token_text(token) for token in tokens)

    def token_text(self, token: int) -> str:
        return self.alphabet[token] if token < self.size else "▁"

    def identity(self) -> str:
        return _digest(f"{self.alphabet}|{self.separator}|{self.normalise}")


def alphabet_of(texts: Iterable[str], separator: str, normalise: Normalisation, most: int) -> str:
    """The `most` most frequent characters of the texts and the separator, in code-point order."""
    if normalise == "letters":
        return "".join(sorted({separator, " ", *string.ascii_lowercase}))
    counts: Counter = Counter()
    for text in texts:
        counts.update(normalised(text, normalise))
    counts.pop(separator, None)
    return "".join(sorted({separator, *(character for character, _ in counts.most_common(most - 1))}))


def normalised(text: str, how: Normalisation) -> str:
    """ "lowercase"; or "letters": a to z and single spaces, all else a space (text8's form)."""
    if how == "none":
        return text
    text = text.lower()
    return re.sub(r"[^a-z]+", " ", text) if how == "letters" else text


class Subwords(Encoding):
    """A tokenizer of the `tokenizers` library, without special tokens added; `separator` is one of its tokens."""

    def __init__(self, tokenizer, *, separator: str = DOCUMENT_END, source: str = "tokenizer"):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer, self.size = tokenizer, tokenizer.get_vocab_size(with_added_tokens=True)
        found = tokenizer.token_to_id(separator)
        if found is None:
            raise DataError(
                f"{source}: no token {separator!r} to stand between documents; name one with data.separator"
            )
        self.separator = found

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode([token for token in tokens if token < self.size], skip_special_tokens=False)

    def token_text(self, token: int) -> str:
        return self.decode([token])

    def identity(self) -> str:
        return _digest(f"{self.tokenizer.to_str()}|{self.separator}")


def load_tokenizer(name: str):
    """A tokenizer from a tokenizer.json, a folder with one or with GPT-2's vocab.json and merges.txt, or the hub."""
    from tokenizers import Tokenizer

    path = Path(name).expanduser()
    try:
        if path.is_dir() and not (path / "tokenizer.json").is_file():
            return _byte_level(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        return Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(name)
    except DataError:
        raise
    except Exception as error:  # the library raises bare Exception for every fault
        raise DataError(
            f"data.tokenizer: {name}: neither 'characters', a tokenizer.json, a folder with one (or with vocab.json "
            f"and merges.txt), nor a name that the hub gives ({error})"
        ) from error


def _byte_level(folder: Path):
    """GPT-2's byte-level BPE from its two files."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    files = [folder / "vocab.json", folder / "merges.txt"]
    for file in files:
        if not file.is_file():
            raise DataError(f"data.tokenizer: {folder}: no tokenizer.json, and no {file.name}")
    tokenizer = Tokenizer(models.BPE.from_file(*map(str, files)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id(DOCUMENT_END) is not None:
        tokenizer.add_special_tokens([AddedToken(DOCUMENT_END, special=True)])
    return tokenizer


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
