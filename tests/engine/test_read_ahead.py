"""Batches that a thread reads ahead are those that the stream gives, in order; its errors come in their place; it always ends."""

import contextlib
import random
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from di4c.contracts import Batch, Split
from di4c.engine import stream as streams
from di4c.engine.metrics import RunningMeans
from di4c.engine.nonfinite import StopOnNonFinite
from di4c.engine.read_ahead import AHEAD, ReadAhead
from di4c.engine.stream import ExampleStream
from di4c.errors import DataError
from tests.losses.test_host_waits import Waits

CPU = torch.device("cpu")


class Reader(Split):
    """Example i is the token i. Notes who calls it; fails where it is asked for the example `broken`."""

    def __init__(self, size=10, broken=None, pause=0.0):
        self.size, self.broken, self.pause = size, broken, pause
        self.inside, self.most, self.calls, self.threads = 0, 0, 0, set()

    def __len__(self):
        return self.size

    def batch(self, indices, draws=None):
        self.inside += 1
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        self.most = max(self.most, self.inside)
        time.sleep(self.pause)
        self.inside -= 1
        if self.broken in indices.tolist():
            raise DataError(f"example {self.broken} cannot be read")
        return Batch(indices[:, None], indices)


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("di4c-batches")]


def keys(first: int, last: int) -> list[tuple[int, int, int]]:
    return [(step, start, start + 2) for step in range(first, last) for start in (2, 4)]


def same(found, expected) -> bool:
    (batch, draws), (batch_2, draws_2) = found, expected
    equal = torch.equal(batch.x_0, batch_2.x_0) and torch.equal(batch.cond, batch_2.cond)
    return equal and torch.equal(draws.child("t").uniform(3), draws_2.child("t").uniform(3))


def test_the_batches_are_the_streams_from_any_step_on():
    plain = ExampleStream(Reader(), 5, batch_size=6)
    for first in [0, *random.Random(0).sample(range(20), 5)]:
        with ReadAhead(ExampleStream(Reader(), 5, batch_size=6), keys(first, 20), CPU) as batches:
            assert all(same(batches.next(), plain.batch(*key)) for key in keys(first, 20))
    assert not reading()


def test_only_a_few_batches_are_read_ahead_and_by_the_thread():
    reader = Reader()
    with ReadAhead(ExampleStream(reader, 5, batch_size=6), keys(0, 1000), CPU) as batches:
        batches.next()
        deadline = time.monotonic() + 60
        while reader.calls < AHEAD + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert reader.calls == AHEAD + 1 and reader.threads == {reading()[0].name}
    assert not reading() and reader.calls == AHEAD + 1


def test_an_error_comes_in_the_place_of_its_batch():
    order = ExampleStream(Reader(), 5, batch_size=6).indices(0, 10).tolist()
    stream = ExampleStream(Reader(broken=order[7]), 5, batch_size=6)
    with (
        pytest.raises(DataError, match=f"example {order[7]} cannot be read"),
        ReadAhead(stream, keys(0, 9), CPU) as batches,
    ):
        assert [batches.next()[0].cond.tolist() for _ in range(2)] == [order[2:4], order[4:6]]
        while True:
            served = batches.next()[0].cond.tolist()
            assert order[7] not in served
    assert not reading()


def test_an_error_elsewhere_ends_the_thread_in_the_midst_of_a_batch():
    stream = ExampleStream(Reader(pause=0.05), 5, batch_size=6)
    with pytest.raises(RuntimeError, match="elsewhere"), ReadAhead(stream, keys(0, 9), CPU) as batches:
        batches.next()
        raise RuntimeError("elsewhere")
    assert not reading()


def test_a_reader_is_called_from_one_thread_at_a_time():
    reader = Reader(pause=0.001)
    stream = ExampleStream(reader, 5, batch_size=6)
    with ReadAhead(stream, keys(0, 20), CPU) as batches:
        for step in range(20):
            batches.next()
            assert torch.equal(stream.batch(step, 0, 6)[0].cond, stream.indices(6 * step, 6 * step + 6))
            batches.next()
    assert len(reader.threads) == 2 and reader.most == 1


def test_on_cuda_the_work_waits_for_the_copy_and_the_host_does_not(monkeypatch):
    happened = []
    copies = SimpleNamespace(record_event=lambda: "copied")
    work = SimpleNamespace(wait_event=lambda event: happened.append(("wait", event)))
    inside = threading.local()

    @contextlib.contextmanager
    def on(stream):
        inside.stream = stream
        yield
        inside.stream = None

    def placed(values, device):
        happened.append(("copy", getattr(inside, "stream", None) is copies))
        return values

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copies)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: work)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: happened.append(("held", stream is work)))
    monkeypatch.setattr(streams, "placed", placed)
    with ReadAhead(ExampleStream(Reader(), 5, batch_size=6), keys(0, 1)[:1], torch.device("cuda", 0)) as batches:
        batches.next()
    assert happened == [("copy", True), ("copy", True), ("wait", "copied"), ("held", True), ("held", True)]


def test_taking_a_batch_and_keeping_its_losses_asks_the_device_for_nothing():
    shards, means = SimpleNamespace(engine=SimpleNamespace(device=CPU)), RunningMeans(CPU)
    guard = StopOnNonFinite(shards, None, None, print)
    with ReadAhead(ExampleStream(Reader(), 5, batch_size=6), keys(0, 3), CPU) as batches, Waits() as found:
        for step in range(3):
            batch, _ = batches.next()
            loss = batch.x_0.sum(1) / 2
            guard.observe(loss, step)
            means.add({"loss": loss}, len(loss))
    assert found.number == 0
