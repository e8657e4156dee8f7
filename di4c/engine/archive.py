"""Safetensors files written tensor by tensor, so that no more than one tensor is held, with a checksum on the way."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
"""What a file can hold, by safetensors' names."""
Entry = tuple[str, torch.dtype, tuple[int, ...]]


def write_safetensors(path: Path, entries: list[Entry], tensors: Iterable[Tensor]) -> str:
    """Writes the tensors, which come in the order of `entries`, and syncs them to disk; the file's sha256 in hex."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for block in _blocks(entries, tensors):
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _blocks(entries: list[Entry], tensors: Iterable[Tensor]) -> Iterator[memoryview | bytes]:
    header, offset = {}, 0
    for name, dtype, shape in entries:
        size = torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for (name, dtype, shape), tensor in zip(entries, tensors, strict=True):
        assert tensor.dtype == dtype and tuple(tensor.shape) == tuple(shape), f"{name}: {tensor.dtype} {tensor.shape}"
        if tensor.numel():
            yield memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
