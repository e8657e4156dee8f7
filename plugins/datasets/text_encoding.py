"""Text ↔ tokens: by characters, or by a tokenizer of the `tokenizers` library."""

import contextlib
import hashlib
import json
import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from di4c.errors import DataError
from di4c_plugins.datasets.reading import named_by, open_plain, reading, reason

Normalisation = Literal["none", "lowercase", "letters"]
DOCUMENT_END = "<|endoftext|>"
USUAL_MASKS = ("[MASK]", "<mask>", "<|mask|>", "<|mdm_mask|>")


class UnreadableText(DataError):
    """A text that cannot be data: which of the texts, and the character where."""

    def __init__(self, index: int, position: int, told: str):
        super().__init__(told)
        self.index, self.position = index, position


class Encoding(ABC):
    """size: number of tokens. separator: the token that stands between documents."""

    size: int
    separator: int

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text. Raises UnreadableText for one that cannot be encoded."""

    def known(self, text: str) -> list[int]:
        """The tokens of a text that must not lose anything, a prompt. Raises DataError that names what has no token."""
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
            raise DataError(
                f"prompt {text!r}: no token for {', '.join(map(repr, lost))}; the alphabet is {self.alphabet!r}"
            )
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
    """A tokenizer of the `tokenizers` library, without special tokens added; `separator` is one of its tokens.

    size is the largest id plus one, so that ids which no token has are states as well, and no token is state `size`.
    A special token that stands literally in a text is read as text, the separator alone as itself; where the vocabulary
    holds the same word, so that it would come out as the special token all the same, the text is refused.
    """

    def __init__(self, tokenizer, *, separator: str = DOCUMENT_END, source: str = "tokenizer"):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer, self.source = tokenizer, source
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        found = vocabulary.get(separator)
        if found is None:
            raise DataError(
                f"{source}: no token {separator!r} to stand between documents; name one with data.separator"
            )
        self.size, self.separator, self.separator_text = max(vocabulary.values()) + 1, found, separator
        self.unknown = _unknown_id(tokenizer)
        self.added = tokenizer.get_added_tokens_decoder()
        special = {token for token, entry in self.added.items() if entry.special}
        masks = {vocabulary[name] for name in USUAL_MASKS if name in vocabulary}
        self.special = (special | masks) - {self.separator, self.unknown}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except Exception:  # the library raises bare Exception; which text it was is found one by one
            found = [self._encoded(i, text) for i, text in enumerate(texts)]
        return [
            e.ids if self.special.isdisjoint(e.ids) else self._literally(i, text)
            for i, (e, text) in enumerate(zip(found, texts, strict=True))
        ]

    def known(self, text: str) -> list[int]:
        try:
            ids = self.encode([text])[0]
        except UnreadableText as error:
            raise DataError(f"prompt {text!r}: {error}") from error
        lost = self._lost(text)
        if lost:
            raise DataError(f"prompt {text!r}: no token for {', '.join(map(repr, lost))} in {self.source}")
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode([token for token in tokens if token < self.size], skip_special_tokens=False)

    def token_text(self, token: int) -> str:
        return self.decode([token])

    def identity(self) -> str:
        return _digest(f"{self.tokenizer.to_str()}|{self.separator}")

    def _encoded(self, index: int, text: str):
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:
            raise UnreadableText(index, 0, f"{self.source} cannot encode it ({reason(error)})") from error

    def _literally(self, index: int, text: str) -> list[int]:
        """The tokens of a text in which special tokens stand, these read as text but for the separator."""
        ids: list[int] = []
        start = 0
        with self._special_as_text():
            for part in text.split(self.separator_text):
                encoded = self._encoded(index, part)
                for token, (begin, end) in zip(encoded.ids, encoded.offsets, strict=True):
                    if token in self.special:
                        word = part[begin:end].strip() or self.tokenizer.id_to_token(token)
                        told = f"{word!r} is a special token of {self.source}; take it out of the text, or change its spelling"
                        raise UnreadableText(index, start + begin, told)
                ids += [*encoded.ids, self.separator]
                start += len(part) + len(self.separator_text)
        return ids[:-1]

    @contextlib.contextmanager
    def _special_as_text(self) -> Iterator[None]:
        """Inside, a special token that stands literally in a text is read as text."""
        self.tokenizer.encode_special_tokens = True
        try:
            yield
        finally:
            self.tokenizer.encode_special_tokens = False

    def _lost(self, text: str) -> list[str]:
        """The words of a text that the tokenizer makes its unknown token or leaves out."""
        words = self._unknown(text)
        with self._special_as_text():
            for part in text.split(self.separator_text):
                words += self._unknown(part) + self._left_out(part)
        return list(dict.fromkeys(words))

    def _unknown(self, text: str) -> list[str]:
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        return [
            _word_around(text, *at)
            for token, at in zip(encoded.ids, encoded.offsets, strict=True)
            if token == self.unknown
        ]

    def _left_out(self, text: str) -> list[str]:
        """The words of which the model drops characters, as BPE without an unknown token does."""
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        for token, (begin, end) in zip(encoded.ids, encoded.offsets, strict=True):
            if token in self.added:  # found before the model is asked
                text = text[:begin] + " " * (end - begin) + text[end:]
        normaliser, splitter = self.tokenizer.normalizer, self.tokenizer.pre_tokenizer
        text = normaliser.normalize_str(text) if normaliser else text
        words = splitter.pre_tokenize_str(text) if splitter else [(text, (0, len(text)))]
        kept = [(_covered(self.tokenizer.model.tokenize(word), word), at) for word, at in words if word.strip()]
        return [text[begin:end].strip() for whole, (begin, end) in kept if not whole]


def load_tokenizer(name: str):
    """A tokenizer from a tokenizer.json, a folder with one or with GPT-2's vocab.json and merges.txt, or the hub."""
    from tokenizers import Tokenizer

    wanted = "a tokenizer ('characters', a tokenizer.json, a folder with one or with vocab.json and merges.txt, or a hub name)"
    with reading(f"data.tokenizer: {name}", wanted):
        path = Path(name).expanduser()
        if path.is_dir() and not (path / "tokenizer.json").exists():
            return _byte_level(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if file.exists() or file.is_symlink() or name.startswith(("/", ".", "~")) or file.suffix == ".json":
            with named_by("data.tokenizer"):
                open_plain(file).close()
            return Tokenizer.from_file(str(file))
        return Tokenizer.from_pretrained(name)


def _byte_level(folder: Path):
    """GPT-2's byte-level BPE from its two files."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    files = [folder / "vocab.json", folder / "merges.txt"]
    for file in files:
        if not file.is_file():
            raise DataError(f"data.tokenizer: {folder}: no tokenizer.json, and no {file.name}")
        with named_by("data.tokenizer"):
            open_plain(file).close()
    with reading(f"data.tokenizer: {folder}", "GPT-2's vocab.json and merges.txt"):
        tokenizer = Tokenizer(models.BPE.from_file(*map(str, files)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id(DOCUMENT_END) is not None:
        tokenizer.add_special_tokens([AddedToken(DOCUMENT_END, special=True)])
    return tokenizer


def _unknown_id(tokenizer) -> int | None:
    """The id of the token that stands for unknown words, or None."""
    model = json.loads(tokenizer.to_str())["model"]
    name = model.get("unk_token")
    return tokenizer.token_to_id(name) if name is not None else model.get("unk_id")


def _word_around(text: str, begin: int, end: int) -> str:
    """The word, between spaces, of which text[begin:end] is a part."""
    while begin < end and text[begin].isspace():
        begin += 1
    before, after = text[:begin].split(" ")[-1], text[end:].split(" ")[0]
    return (before + text[begin:end] + after).strip()


def _covered(tokens: list, word: str) -> bool:
    """Whether a model's tokens of a word, whose offsets count bytes, cover all of it."""
    edges = [0, *(edge for token in tokens for edge in token.offsets), len(word.encode())]
    return all(end == begin for end, begin in zip(edges[::2], edges[1::2], strict=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
