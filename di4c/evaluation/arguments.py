"""The one check of what a caller asks of a trained model: Python interface and commands say the same of the same mistake."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from di4c.contracts import Draws, ForwardProcess
from di4c.errors import SpecError
from di4c.whole import as_int, whole_number


def draws_of(seed: Any, generator: torch.Generator | None, num: int, device: torch.device | str) -> Draws:
    """The randomness of `num` samples: by a seed, any whole number, else by one draw of the generator (None: torch's own)."""
    if seed is not None:
        return Draws(whole_number(seed, "seed"), 0, num, (), device)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise SpecError(f"generator: expected a torch.Generator, found {generator!r}; a number is given as seed")
    return Draws.from_generator(generator, num, device)


def labels_of(cond: Any, num: int, num_classes: int | None) -> Tensor:
    """Labels [num] int64 on the CPU from one label for all or `num` of them, −1 where there is none. Raises SpecError."""
    if num_classes is None:
        raise SpecError("cond: the data have no labels, so it must be left out")
    allowed = f"a label 0 to {num_classes - 1} (−1: none), or {num} of them"
    single = as_int(cond)
    labels = (
        torch.full((num,), single)
        if single is not None and abs(single) < 2**62
        else whole_numbers(cond, "cond", allowed)
    )
    if labels.shape != (num,) or not ((labels >= -1) & (labels < num_classes)).all():
        raise SpecError(f"cond: expected {allowed}; found {told(cond)}")
    return labels


def known_tokens(known: Any, num_positions: int, process: ForwardProcess) -> Tensor:
    """A prompt [D] int64 on the CPU, −1 where the sampler is free. SpecError where it does not fit or cannot be kept."""
    if process.mask_index is None:
        raise SpecError("known: a prompt needs a process with a mask state: only there are known tokens kept")
    allowed = (
        f"{num_positions} tokens below {process.num_states}, −1 where free, none the mask state {process.mask_index}"
    )
    tokens = whole_numbers(known, "known", allowed)
    fits = tokens.shape == (num_positions,) and ((tokens >= -1) & (tokens < process.num_states)).all()
    if not fits or (tokens == process.mask_index).any():
        raise SpecError(f"known: expected {allowed}; found {told(known)}")
    return tokens


def tokens_of(x: Any, num_positions: int, num_states: int) -> Tensor:
    """Samples [n, D] int64 on the CPU from such a table, or from one sample [D]. Raises SpecError."""
    allowed = f"tokens [n, {num_positions}], 0 to {num_states - 1}"
    tokens = whole_numbers(x, "tokens", allowed)
    tokens = tokens[None] if tokens.dim() == 1 else tokens
    if tokens.dim() != 2 or tokens.shape[1] != num_positions or not ((tokens >= 0) & (tokens < num_states)).all():
        raise SpecError(f"tokens: expected {allowed}; found {told(x)}")
    return tokens


def whole_numbers(values: Any, where: str, allowed: str) -> Tensor:
    """An int64 tensor on the CPU of a tensor, array or (nested) list of whole numbers; SpecError for anything else."""
    listed = isinstance(values, Sequence) and any(isinstance(value, bool) for value in values)
    try:
        tensor = torch.as_tensor(values).cpu()
        exact = not (listed or tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        exact = False
    if not exact:
        raise SpecError(f"{where}: expected {allowed}; found {told(values)}")
    return tensor.long()


def device_of(device: torch.device | str | int | None) -> torch.device:
    """The device of that name, a GPU if there is one where None is given. Raises SpecError where it is not there."""
    try:
        chosen = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
        if chosen.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=chosen)
    # torch has no error of its own for this
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpecError(f"device: {device!r} cannot be used here ({reason}); expected cpu, cuda, cuda:1, …") from error
    return chosen


def path_of(path: Any, asked: str) -> str | os.PathLike:
    """A path as it is given; SpecError for what is none. asked: who needs it."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not os.fspath(path):
        raise SpecError(f"{asked}: expected a path, found {path!r}")
    return path


def override_list(overrides: Any) -> list[str]:
    """Overrides as a list of "KEY=VALUE". Raises SpecError, also for one bare string, whose letters are no overrides."""
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        raise SpecError(f"overrides: expected a list of 'KEY=VALUE', found {overrides!r}")
    return list(overrides)


def told(value: Any) -> str:
    """A value for one line of a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}…"
