"""Samples as images and texts, without the data: what exports carry."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from di4c.contracts import Decoder, ImageTokenizer, strict_load
from di4c.contracts.weight_files import read_tensors, require_whole
from di4c.errors import CheckpointError, DataError, SpecError
from di4c.paths import with_ending
from di4c_plugins.datasets.image_grid import image_grid
from di4c_plugins.datasets.text_encoding import Characters, Encoding, Subwords
from di4c_plugins.tokenizers.pixels import levels_of

TILE = 84
"""About how many pixels of a contact sheet a small image is enlarged to."""

TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "tokenizer.safetensors"


class Pictures(Decoder):
    """Base of decoders of images; a subclass says what 8-bit pixels [n, C, H, W] tokens are."""

    scale: int

    def pixels(self, x: Tensor) -> Tensor:
        """8-bit pixels [n, C, H, W] uint8 on the CPU of tokens [n, D]."""
        raise NotImplementedError

    def decode(self, x: Tensor) -> list[Image.Image]:
        return [Image.fromarray(tile) for tile in self._tiles(x)]

    def save_grid(self, x: Tensor, path: Path, cond: Tensor | None = None) -> Path:
        """Writes a PNG of all images; with labels cond [n], one row a class."""
        path = with_ending(path, ".png")
        sheet = image_grid(self._tiles(x), None if cond is None else cond.cpu().numpy(), scale=self.scale)
        sheet.save(path, optimize=True)
        return path

    def _tiles(self, x: Tensor) -> np.ndarray:
        """[n, H, W] or [n, H, W, 3] uint8."""
        pixels = self.pixels(x).numpy()
        return pixels[:, 0] if pixels.shape[1] == 1 else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


class Levels(Pictures):
    """Tokens are levels 0, …, S − 1 of the values of an image (C, H, W) in that order; `ink`: the highest is black."""

    def __init__(self, shape: tuple[int, int, int], num_states: int, *, ink: bool = False, scale: int | None = None):
        self.shape, self.num_states, self.ink = tuple(shape), num_states, ink
        self.scale = scale or max(1, TILE // self.shape[1])

    def pixels(self, x: Tensor) -> Tensor:
        light = x.cpu().clamp(0, self.num_states - 1).double() * (255 / (self.num_states - 1))
        return (255 - light if self.ink else light).round().to(torch.uint8).unflatten(1, self.shape)

    def save(self, folder: Path) -> dict[str, Any]:
        return {"shape": list(self.shape), "num_states": self.num_states, "ink": self.ink, "scale": self.scale}

    @classmethod
    def restored(cls, folder: Path, values: dict[str, Any]) -> "Levels":
        shape, num_states, scale = values.pop("shape"), values.pop("num_states"), values.get("scale", 1)
        if len(shape) != 3 or not all(type(size) is int and size > 0 for size in (*shape, num_states - 1, scale)):
            raise ValueError(f"shape {shape}, num_states {num_states}, scale {scale}")
        return cls(shape, num_states, **values)


class Codes(Pictures):
    """Tokens are codes of a tokenizer network, whose weights travel along, and images what it decodes them to."""

    def __init__(self, tokenizer: ImageTokenizer, *, batch_size: int = 64):
        self.tokenizer, self.batch_size = tokenizer.eval().requires_grad_(False), batch_size
        self.scale = max(1, TILE // tokenizer.image_shape[1])

    def pixels(self, x: Tensor) -> Tensor:
        return self.levels(x, 256).unflatten(1, self.tokenizer.image_shape).to(torch.uint8)

    @torch.no_grad()
    def levels(self, x: Tensor, num_states: int) -> Tensor:
        """The decoded images as levels 0, …, num_states − 1: [n, C·H·W] int64 on the CPU."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = self.tokenizer.to(device)
        parts = x.clamp(0, network.num_codes - 1).split(self.batch_size)
        return torch.cat([levels_of(network.decode(part.to(device)), num_states).cpu() for part in parts])

    def save(self, folder: Path) -> dict[str, Any]:
        kind, options = type(self.tokenizer), self.tokenizer.options
        if options is None:
            raise SpecError(
                f"{kind.__name__} does not keep its `options`, so it cannot be built again without its data"
            )
        weights = {name: value.detach().cpu().contiguous() for name, value in self.tokenizer.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE)
        return {
            "tokenizer": f"{kind.__module__}:{kind.__qualname__}",
            "options": options,
            "batch_size": self.batch_size,
        }

    @classmethod
    def restored(cls, folder: Path, values: dict[str, Any]) -> "Codes":
        module, _, name = values["tokenizer"].partition(":")
        tokenizer = getattr(importlib.import_module(module), name)(**values["options"])
        strict_load(tokenizer, read_tensors(folder / WEIGHTS_FILE), str(folder / WEIGHTS_FILE))
        return cls(tokenizer, batch_size=values["batch_size"])


class Texts(Decoder):
    """Tokens are those of an encoding; wrap: a sequence of `length` begins and ends with the separator."""

    def __init__(self, encoding: Encoding, length: int, *, wrap: bool = False):
        self.encoding, self.length, self.wrap = encoding, length, wrap

    def decode(self, x: Tensor) -> list[str]:
        return [self.encoding.decode(row) for row in x.tolist()]

    def save_grid(self, x: Tensor, path: Path, cond: Tensor | None = None) -> Path:
        """Writes the texts, numbered."""
        path = with_ending(path, ".txt")
        texts = self.decode(x.cpu())
        path.write_text("".join(f"[{i}]\n{text}\n\n" for i, text in enumerate(texts, 1)), encoding="utf-8")
        return path

    def prompt(  # type: ignore[override]  # what texts have of the options that the contract leaves open
        self, prefix: str = "", suffix: str = "", infill: str = "", blank: str = "_"
    ) -> Tensor:
        """Known tokens for prompted sampling, −1 where the sampler is free: [D] int64.

        prefix stands at the beginning, suffix at the end, inside the separators of sequences that are wrapped; in
        `infill`, which begins after the prefix, each `blank` is one free token. Raises DataError where they do not fit,
        or have characters or words without a token, which it names; SpecError for what is no text.
        """
        for name, told in {"prefix": prefix, "suffix": suffix, "infill": infill, "blank": blank}.items():
            if not isinstance(told, str) or (name == "blank" and not told):
                raise SpecError(f"prompt: expected a text as {name}, found {told!r}")
        inner: list[int] = []
        for i, piece in enumerate(infill.split(blank) if infill else []):
            inner += ([-1] if i else []) + self.encoding.known(piece)
        edge = [self.encoding.separator] if self.wrap else []
        begin, end = [*edge, *self.encoding.known(prefix), *inner], [*self.encoding.known(suffix), *edge]
        if len(begin) + len(end) > self.length:
            told = f"the prompt has {len(begin) + len(end)} tokens"
            raise DataError(
                f"{told}{', the separators at both ends included' if edge else ''}; a sequence has {self.length}"
            )
        free = self.length - len(begin) - len(end)
        return torch.tensor([*begin, *[-1] * free, *end])

    def save(self, folder: Path) -> dict[str, Any]:
        values = {"length": self.length, "wrap": self.wrap}
        if isinstance(self.encoding, Characters):
            separator = self.encoding.alphabet[self.encoding.separator]
            return values | {
                "alphabet": self.encoding.alphabet, "separator": separator, "normalise": self.encoding.normalise,
            }  # fmt: skip
        if not isinstance(self.encoding, Subwords):
            raise SpecError(f"{type(self.encoding).__name__} is no encoding that travels in exports")
        self.encoding.tokenizer.save(str(folder / TOKENIZER_FILE))
        return values | {"separator": self.encoding.tokenizer.id_to_token(self.encoding.separator)}

    @classmethod
    def restored(cls, folder: Path, values: dict[str, Any]) -> "Texts":
        length, wrap = values.pop("length"), values.pop("wrap")
        if "alphabet" in values:
            return cls(Characters(values.pop("alphabet"), **values), length, wrap=wrap)
        from tokenizers import Tokenizer

        file = folder / TOKENIZER_FILE
        require_whole(file)
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for every fault
            raise CheckpointError(f"{file}: not the tokenizer of this export ({error})") from error
        return cls(Subwords(tokenizer, separator=values["separator"], source=str(file)), length, wrap=wrap)
