"""Compiles every kernel for an H100 without having one, and prints what comes of it, a JSON line each; run without the interpreter."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from di4c.kernels import triton_kernels as kernels
from di4c.kernels.triton_rows import INVERT_WARPS, warps_for

TARGET = GPUTarget("cuda", 90, 32)
F, D, I64, B = "*fp32", "*fp64", "*i64", "*bf16"
LOGITS = {"z": F, "bias": B, "position": I64, "lse": F}


def signature(kernel, **types: str) -> dict[str, str]:
    """The type of each parameter; what is not named is a size."""
    return {name: types.get(name, "i32") for name in kernel.arg_names}


def cases(components: int):
    """(kernel, types, constants) as they are launched on a card, with every option on. The components are a size, no constant."""
    bias = {"BIAS": 2, "BS": 1024 if components <= 16 else 512}
    yield kernels.normalisers, {**LOGITS, "out": F}, bias
    yield (
        kernels.divergences,
        {**LOGITS, "log_w": F, "q": F, "sums": F, "pulled": F},
        {**bias, "KL": True, "COMPONENTWISE": True, "JP": 2},
    )
    types = {
        **LOGITS,
        "log_w": F,
        "row_sums": F,
        "q": F,
        "g_kl": F,
        "g_componentwise": F,
        "tokens": I64,
        "g_chosen": F,
        "out": B,
    }
    wanted = {"KL": True, "COMPONENTWISE": True}
    yield kernels.gradient, types, {**bias, **wanted, "JP": 2}
    yield kernels.gradient_at_tokens, types, {"BIAS": 2, **wanted, "MP": max(2, components)}
    yield kernels.masses, {**LOGITS, "out": D}, bias
    yield kernels.invert, {**LOGITS, "mass": D, "uniform": D, "out": I64}, {**bias, "TP": 128}
    yield kernels.means, {**LOGITS, "weights": F, "certain": I64, "out": F}, {**bias, "CERTAIN": True}


def spilled(ptx: str, ptxas: str) -> int:
    """Bytes that ptxas spills to memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        told = subprocess.run([ptxas, "-v", "--gpu-name=sm_90a", str(path), "-o", str(path.with_suffix(".cubin"))],
                              capture_output=True, text=True, check=True).stderr  # fmt: skip
    return sum(int(n) for n in re.findall(r"(\d+) bytes spill", told))


def main(components: list[int]) -> None:
    ptxas = str(Path(triton.__file__).parent / "backends/nvidia/bin/ptxas")
    for number in components:
        for kernel, types, constants in cases(number):
            named = {
                name: kernel.arg_names.index(name) for name in (*types, *constants, "width") if name in kernel.arg_names
            }
            source = ASTSource(
                kernel,
                signature(kernel, **types, **dict.fromkeys(constants, "constexpr")),
                {(named[name],): value for name, value in constants.items()},
                {
                    (named[k],): [["tt.divisibility", 16]] for k in (*types, "width") if k in named
                },  # rows of `empty_rows`
            )
            warps = INVERT_WARPS if kernel is kernels.invert else warps_for(constants["BS"]) if "BS" in constants else 4
            ptx = triton.compile(source, target=TARGET, options={"num_warps": warps}).asm["ptx"]
            found = {"spilled": spilled(ptx, ptxas), "wide_loads": len(re.findall(r"ld\.global\S*\.v4", ptx))}
            print(json.dumps({"kernel": kernel.__name__, "components": number} | found), flush=True)


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]])
