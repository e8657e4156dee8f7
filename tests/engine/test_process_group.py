"""Joining the other ranks: on which device, and what is said when it cannot be."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from di4c.engine import process_group
from di4c.errors import LaunchError, TrainingError
from tests.engine.launching import TOP

ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    """The environment, to be changed at will."""
    changed = {k: v for k, v in os.environ.items() if k != "DS_ACCELERATOR"}
    monkeypatch.setattr(os, "environ", changed)
    return changed


def gpus(monkeypatch, number: int) -> list[int]:
    """Pretends to see some GPUs; the list takes in those made current."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_trouble_28_a_port_in_use_is_told_by_its_variable(environment):
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        environment.update(ALONE | {"MASTER_PORT": str(port)})
        with pytest.raises(LaunchError, match=f"MASTER_PORT={port} is in use") as raised, process_group.meeting():
            dist.TCPStore("127.0.0.1", port, 1, is_master=True, use_libuv=True)
    assert "\n" not in str(raised.value)


def test_trouble_28_what_a_rank_waits_for_is_told_by_every_rank(environment, capsys):
    environment.update({"RANK": "1", "WORLD_SIZE": "2"})
    with process_group.told_when_slow("waiting", first=0.001, every=60.0, by_all=True):
        for _ in range(2000):
            torch.zeros(1000).sum()
            if capsys.readouterr().out.startswith("waiting: "):
                break
        else:
            raise AssertionError("nothing was said")


@pytest.mark.parametrize(
    ("left", "tool"),
    [
        ({"RANK": "1"}, "train.py --spec"),
        ({"RANK": ""}, "train.py --spec"),
        ({"WORLD_SIZE": "2"}, "eval.py --out out --run"),
    ],
)
def test_trouble_28_a_leftover_variable_ends_a_command_with_one_message(environment, left, tool, tmp_path):
    clean = {k: v for k, v in environment.items() if k not in ALONE}
    command = [sys.executable, *f"{TOP}/tools/{tool} {tmp_path}/missing".split()]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ | clean | left
    )
    assert done.returncode == 1 and done.stdout == "" and not list(tmp_path.iterdir())
    (line,) = done.stderr.splitlines()
    ((key, value),) = left.items()
    assert line.startswith(f"error: environment: {key}={value}: ")


def test_a_rank_takes_the_gpu_of_its_number(environment, monkeypatch):
    environment["LOCAL_RANK"] = "1"
    assert process_group.local_device() == torch.device("cpu")
    current = gpus(monkeypatch, 2)
    assert process_group.local_device() == torch.device("cuda", 1) and current == [1]
    environment["LOCAL_RANK"] = "2"
    with pytest.raises(LaunchError, match="LOCAL_RANK=2, but this process sees 2 GPUs"):
        process_group.local_device()
    environment["DS_ACCELERATOR"] = "cpu"
    assert process_group.local_device() == torch.device("cpu")


def test_a_rank_that_sees_its_own_gpu_alone_takes_it_and_deepspeed_too(environment, monkeypatch):
    current = gpus(monkeypatch, 1)
    environment["LOCAL_RANK"] = "3"
    assert process_group.local_device() == torch.device("cuda", 0)
    assert current == [0] and environment["LOCAL_RANK"] == "0"


def test_a_gpu_that_nccl_finds_twice_is_one_message(environment):
    environment.update(ALONE | {"MASTER_PORT": "1"})
    with (
        pytest.raises(LaunchError, match="another rank has the same GPU; start one rank a GPU"),
        process_group.meeting(),
    ):
        raise dist.DistBackendError("NCCL error\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 7000")
    with pytest.raises(dist.DistBackendError), process_group.meeting():
        raise dist.DistBackendError("another")


@pytest.mark.parametrize(("uuids", "shared"), [("abc", None), ("aba", "ranks 0 and 2 have the same GPU (a on host)")])
def test_ranks_that_share_a_gpu_are_refused(environment, monkeypatch, uuids, shared):
    known = {f"di4c/gpu/{number}": f"{uuid} on host".encode() for number, uuid in enumerate(uuids)}
    store = SimpleNamespace(set=lambda key, value: None, get=known.__getitem__)
    environment.update({"RANK": "0", "WORLD_SIZE": "3"})
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="a"))
    if shared is None:
        process_group._refuse_shared_gpus(torch.device("cuda", 0))
        return
    with pytest.raises(TrainingError) as raised:
        process_group._refuse_shared_gpus(torch.device("cuda", 0))
    assert shared in str(raised.value)


def test_trouble_27_nothing_is_compiled_to_start(environment, tmp_path):
    """Neither a compiler nor ninja is asked: those found first fail, and no extension appears."""
    for name in ("ninja", "c++", "g++", "gcc", "cc", "nvcc"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/asked\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    code = "from di4c import ranks; from di4c.engine import process_group as g; print(g.start(), ranks.world_size()); g.finish()"
    built = {
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions"),
        "PATH": f"{tmp_path}:{environment['PATH']}",
        "DS_ACCELERATOR": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, timeout=300, env=os.environ | built
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "cpu 1", done.stderr
    assert not (tmp_path / "asked").exists() and not (tmp_path / "extensions").exists()
