"""tools/bench.py: every subject runs at tiny size, and what it says of sizes, FLOPs and peaks is right."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import bench
from benchmarks.peaks import peak_tflops
from benchmarks.pretrain import step_flops

HERE = "--threads 1 --repeats 1 --in-process --positions 8 --states 40 --width 16"
NETWORK = f"{HERE} --depth 2 --heads 2"
TEXT = f"{NETWORK} --conditioning 8"


def run(line: str) -> dict:
    return bench.run(line.split())


def test_the_loss_is_that_of_the_plain_implementation():
    found = run(f"loss --components 3 {HERE}")
    for name, value in found["plain"]["report"].items():
        assert found["project"]["report"][name] == pytest.approx(value, rel=1e-4), name
    assert found["time_ratio"] > 0 and found["memory_ratio"] >= 0 and found["machine"]["commit"] != "unknown"


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_every_dtype_is_measured(dtype):
    found = run(f"loss --components 3 {HERE} --only project --dtype {dtype}")
    exact = run(f"loss --components 3 {HERE} --only project")
    assert found["shapes"]["dtype"] == dtype
    for name, value in exact["project"]["report"].items():
        assert found["project"]["report"][name] == pytest.approx(value, rel=0.05), name


def test_a_step_is_that_of_the_plain_loss_and_says_where_its_time_goes():
    found = run(f"step --components 2 --only token plain {NETWORK}")
    assert found["token"]["report"]["loss"] == pytest.approx(found["plain"]["report"]["loss"], rel=1e-3, abs=1e-3)
    parts = {"target", "trunk forward", "output head forward", "output head backward", "trunk backward", "optimizer"}
    assert set(found["token"]["report"]["milliseconds"]) == set(found["plain"]["report"]["milliseconds"]) == parts


def test_equal_inputs_are_compared_with_evaluating_each():
    sizes = f"{NETWORK} --batch 6 --components 3 --rank 4"
    found = run(f"step --enumerate --data-only --time 1 --only readout each {sizes}")
    shared, each = (found[name]["report"] for name in ("readout", "each"))
    assert shared["loss"] == pytest.approx(each["loss"], rel=1e-5)
    assert shared["gradient_norms"] == pytest.approx(each["gradient_norms"], rel=1e-4, abs=1e-6)
    with pytest.raises(SystemExit, match="--enumerate"):
        bench.parse(["step", "--only", "readout", "each"])


@pytest.mark.parametrize(
    ("head", "options"), [("token", ""), ("late", "--x-u shared --late-blocks 1"), ("readout", "--rank 4")]
)
def test_a_step_of_the_text_system_with_every_head(head, options):
    found = run(f"step --system text --components 2 --dtype bf16 --head {head} {options} {TEXT}")
    assert found["shapes"]["x_u"] == ("shared" if options.startswith("--x-u") else "each")
    assert [name for name in ("token", "late", "readout", "plain") if name in found] == [head]
    assert found[head]["seconds"] > 0


def test_the_text_system_has_the_references_sizes():
    shapes = bench.parse(["step", "--system", "text", "--dtype", "bf16"])
    assert (shapes.width, shapes.depth, shapes.heads, shapes.conditioning) == (768, 12, 12, 128)
    assert (shapes.positions, shapes.states, shapes.components, shapes.targets, shapes.batch) == (
        1024,
        50258,
        16,
        16,
        1,
    )
    assert (shapes.time, shapes.x_u, shapes.only) == (0.5, "each", ["token"])
    teacher = bench.parse(["pretrain"])
    assert teacher.batch * teacher.positions >= 32768 and teacher.dtype == "bf16" and not teacher.compile


@pytest.mark.parametrize("system", ["small", "text"])
def test_sampling_counts_tokens(system):
    sizes = f"--dtype bf16 {TEXT}" if system == "text" else NETWORK
    found = run(f"sample --system {system} --batch 2 --steps 2 --only project {sizes}")
    # Seconds are stored with five digits after the point.
    assert found["project"]["tokens_per_second"] == pytest.approx(16 / found["project"]["seconds"], rel=1e-3)


def test_pretraining_counts_the_models_flops():
    """Products of a block: q, k, v 3H², out H², MLP 2·4H², adaLN 6HC once a sequence; attention 2·D·H a position; the output head H·S."""
    found = run(f"pretrain --batch 2 {TEXT}")
    assert found["project"]["share_of_peak"] is None  # of a CPU
    arguments = bench.parse(f"pretrain --batch 2 {TEXT}".split())
    d, h, s, c, masked, frequencies = 8, 16, 40, 8, 5, 256
    products = 2 * (d * 12 * h * h + 2 * d * d * h + 6 * h * c) + 2 * h * c + frequencies * c + c * c
    assert step_flops(arguments, masked) == 3 * 2 * (2 * products + masked * h * s)


@pytest.mark.parametrize(("device", "dtype", "peak"), [
    ("NVIDIA H100 80GB HBM3", "bf16", 989.0), ("NVIDIA H100 PCIe", "bf16", 756.0), ("NVIDIA H200", "fp16", 989.0),
    ("NVIDIA A100-SXM4-80GB", "bf16", 312.0), ("NVIDIA A10", "bf16", 125.0), ("NVIDIA L40S", "bf16", 362.0),
    ("NVIDIA L4", "bf16", 121.0), ("NVIDIA H100 80GB HBM3", "fp32", None), ("AMD EPYC, 2 cores", "bf16", None),
])  # fmt: skip
def test_peaks_are_found_by_the_devices_name(device, dtype, peak):
    assert peak_tflops(device, dtype) == peak


@pytest.mark.parametrize(("line", "told"), [
    ("loss --device cuda", "torch sees no CUDA device"),
    ("step --x-u each", "choose --x-u shared"),
    ("step --system text --only plain", "choose --x-u shared"),
])  # fmt: skip
def test_what_cannot_be_measured_is_told_in_one_line(line, told, capsys):
    with pytest.raises(SystemExit) as end:
        bench.parse(line.split())
    assert told in str(end.value) + capsys.readouterr().err
