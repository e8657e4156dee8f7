"""Two hosts on one machine: each a network and host-name namespace of its own, joined by a virtual cable."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.engine.launching import PYTHONPATH, TOP, losses, relative
from tests.engine.test_command import SPEC

NAME = f"di4c{os.getpid() % 10_000}"
ADDRESSES = ("10.231.77.1", "10.231.77.2")


def ip(*arguments: str) -> None:
    ended = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if ended.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {ended.stderr.strip()}")


@contextlib.contextmanager
def hosts() -> Iterator[list[str]]:
    """The names of two namespaces whose interfaces of the same name reach each other. Raises OSError where that is not allowed."""
    names = [f"{NAME}a", f"{NAME}b"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start(host: str, number: int, spec: Path) -> subprocess.Popen:
    """torchrun on one host, as it is started by hand on each of two."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    torchrun += ["--node_rank", str(number), "--master_addr", ADDRESSES[0], "--master_port", "29771"]
    command = [*torchrun, str(TOP / "tools/train.py"), "--spec", str(spec), "--set", "train.run=two"]
    named = ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh", *command]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH, "GLOO_SOCKET_IFNAME": host}
    return subprocess.Popen(
        ["ip", "netns", "exec", host, *named],
        cwd=spec.parent,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.mark.slow
def test_two_hosts_train_as_one_does(tmp_path):
    values = SPEC | {"train": SPEC["train"] | {"steps": 10}, "deepspeed": {"zero_optimization": {"stage": 3}}}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(values))
    with contextlib.ExitStack() as stack:
        try:
            names = stack.enter_context(hosts())
        except OSError as error:
            pytest.skip(f"this machine gives no network namespaces: {error}")
        processes = [start(host, number, spec) for number, host in enumerate(names)]
        told = [process.communicate(timeout=900)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(told)
    command = [sys.executable, str(TOP / "tools/train.py"), "--spec", str(spec), "--set", "train.run=one"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
    alone = subprocess.run([*command, "--set", "deepspeed={}"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    assert relative(losses(tmp_path / "two"), losses(tmp_path / "one")) < 1e-5
