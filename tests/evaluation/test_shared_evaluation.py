import multiprocessing
import os

import pytest
import torch
import torch.distributed as dist

from di4c.engine.process_group import launched_ranks
from di4c.evaluation.cells import CellStore
from di4c.evaluation.sweep import Sweep
from di4c.ranks import Ranks
from tests.evaluation.systems import Data, Mean, Steps, entrant


def measure(folder, ranks):
    sweep = Sweep(
        data=Data(), metrics=[({"name": "mean"}, Mean()), ({"name": "steps"}, Steps())], store=CellStore(folder),
        steps=[1, 2], seeds=[0, 1], samples=21, batch_size=4, ranks=ranks,
    )  # fmt: skip
    return [(m.steps, m.seed, m.nfe, m.metrics) for m in sweep.run([entrant()])]


def work(rank, folder, results):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    ranks = Ranks(rank, 2)
    gathered = ranks.gather_rows(torch.full((rank + 1, 2), rank), [1, 2])
    results.put((rank, measure(folder / "two", ranks), gathered.tolist(), ranks.broadcast(f"from {rank}")))
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_give_the_numbers_of_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=work, args=(rank, tmp_path, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = sorted(results.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join(timeout=300)
        assert worker.exitcode == 0
    assert found[0][1] == measure(tmp_path / "one", Ranks())  # to the last bit
    assert found[1][1] == []
    assert [gathered for _, _, gathered, _ in found] == [[[0, 0], [1, 1], [1, 1]]] * 2
    assert [text for _, _, _, text in found] == ["from 0", "from 0"]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_cover_every_batch_once(size):
    for count in range(12):
        shares = [Ranks(rank, size).share(count) for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("samples", "size"), [(1, 2), (4, 3), (5, 3), (9, 8), (21, 5)])
def test_trouble_b08_fewer_batches_than_ranks(tmp_path, samples, size):
    """Every rank in turn: the first one, which stores the cell, has seconds and calls to tell of, and the rows add up."""
    made = [Sweep(data=Data(), metrics=[], store=CellStore(tmp_path), steps=[1], seeds=[0], samples=samples, batch_size=4,
                  ranks=Ranks(rank, size)) for rank in range(size)]  # fmt: skip
    number = -(-samples // 4)
    assert len(made[0].ranks.share(number)) >= 1
    rows = [[min(i * 4 + 4, samples) - i * 4 for i in sweep.ranks.share(number)] for sweep in made]
    assert [sum(of_rank) for of_rank in rows] == made[0]._shares(number) and sum(map(sum, rows)) == samples


def test_without_a_launcher_there_is_one_rank(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.size, ranks.first) == (0, 1, True)
    assert not dist.is_initialized()


def test_trouble_b18_srun_gives_an_evaluation_its_ranks(monkeypatch):
    joined = {}
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_NODELIST": "n1",
    }
    of_a_launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in of_a_launcher} | step)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: joined.update(os.environ, backend=backend))
    monkeypatch.setattr(dist, "get_rank", lambda: int(os.environ["RANK"]))
    monkeypatch.setattr(dist, "get_world_size", lambda: int(os.environ["WORLD_SIZE"]))
    for name in ("barrier", "destroy_process_group"):
        monkeypatch.setattr(dist, name, lambda: None)
    with launched_ranks() as ranks:
        assert (ranks.rank, ranks.size, ranks.first, ranks.device) == (1, 2, False, "cpu")
    assert (joined["backend"], joined["MASTER_ADDR"], joined["LOCAL_RANK"]) == ("gloo", "n1", "1")
