"""Dense peaks of GPUs in bf16 and fp16 with float32 accumulation, TFLOP/s, from their makers' data sheets."""

PEAK_TFLOPS = {
    "H100 PCIe": 756.0,  # NVIDIA H100 data sheet: 1,513 with sparsity
    "H100 NVL": 835.0,  # same: 1,671 with sparsity
    "H100": 989.0,  # same, SXM: 1,979 with sparsity
    "H200 NVL": 835.0,  # NVIDIA H200 data sheet: 1,671 with sparsity
    "H200": 989.0,  # same, SXM: 1,979 with sparsity
    "GH200": 989.0,  # NVIDIA GH200 data sheet: 1,979 with sparsity
    "B200": 2250.0,  # NVIDIA HGX B200 data sheet: 36 PFLOP/s of eight with sparsity
    "A100": 312.0,  # NVIDIA A100 data sheet
    "A40": 149.7,  # NVIDIA A40 data sheet
    "A10": 125.0,  # NVIDIA A10 data sheet
    "L40S": 362.0,  # NVIDIA L40S data sheet: 733 with sparsity
    "L40": 181.0,  # NVIDIA L40 data sheet: 362 with sparsity
    "L4": 121.0,  # NVIDIA L4 data sheet: 242 with sparsity
    "RTX 4090": 165.2,  # NVIDIA Ada GPU architecture paper: 330.3 with sparsity
    "MI300X": 1307.4,  # AMD Instinct MI300X data sheet
}
"""Part of the name that torch gives → TFLOP/s."""


def peak_tflops(device: str, dtype: str) -> float | None:
    """The peak of the device of that name at bf16 or fp16, by the longest entry that its name holds; None where it is not known."""
    words = device.replace("-", " ").split()
    fits = [name for name in PEAK_TFLOPS if all(word in words for word in name.split())]
    return PEAK_TFLOPS[max(fits, key=len)] if fits and dtype in ("bf16", "fp16") else None
