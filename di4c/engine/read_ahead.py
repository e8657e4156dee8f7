"""Batches prepared by a thread of their own while the device works."""

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import torch

from di4c.contracts.dataset import Batch
from di4c.draws import Draws
from di4c.engine.stream import ExampleStream

AHEAD = 2
"""Batches that are ready or in preparation beside the one in use."""

Key = tuple[int, int, int]
"""(step, start, stop): the arguments of ExampleStream.batch."""


class ReadAhead:
    """The wanted batches of a stream, in order, on the device: `next` gives one, and meanwhile the following are read.

    An error of reading a batch is raised by the `next` that would have returned it. On CUDA the batches are copied from pinned memory
    on a stream of their own, which the stream of the caller's work waits for, not the host. A context, whose end ends the thread.
    """

    def __init__(self, stream: ExampleStream, wanted: Iterable[Key], device: torch.device):
        self._stream, self._wanted, self._device = stream, iter(wanted), device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="di4c-batches")
        self._pending: deque[Future] = deque()
        for _ in range(AHEAD):
            self._ask()

    def next(self) -> tuple[Batch, Draws]:
        """The next wanted batch and the draws for its losses. Raises what reading it raised."""
        batch, draws, copied = self._pending.popleft().result()
        self._ask()
        if copied is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(copied)
            for tensor in (batch.x_0, batch.cond):
                if tensor is not None:
                    tensor.record_stream(current)  # its memory is not used again before the caller's work is done
        return batch, draws

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.shutdown(cancel_futures=True)  # waits for the batch that is being read

    def _ask(self) -> None:
        key = next(self._wanted, None)
        if key is not None:
            self._pending.append(self._reader.submit(self._read, key))

    def _read(self, key: Key) -> tuple[Batch, Draws, torch.cuda.Event | None]:
        with nullcontext() if self._copies is None else torch.cuda.stream(self._copies):
            batch, draws = self._stream.batch(*key, self._device)
            return batch, draws, None if self._copies is None else self._copies.record_event()
