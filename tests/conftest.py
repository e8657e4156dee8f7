"""What every test needs before the first import of torch."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tests, and some start two ranks on two cores
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TRITON_INTERPRET", "1")  # where Triton is installed, its kernels are tested on the CPU

from di4c.torchvision_compat import declare_missing_operators  # noqa: E402

declare_missing_operators()  # as the registry does, for tests that import a plugin directly
