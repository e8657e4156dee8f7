"""Trains what a spec describes: deepspeed tools/train.py --spec SPEC [--set a.b=c]… [--resume]

Also runs under torchrun and srun, and as plain `python tools/train.py` on one device.
"""

import argparse
import os
import sys

from di4c.config.spec import Spec, read_spec
from di4c.engine.launchers import rank_environment
from di4c.engine.reporting import leave, reporting
from di4c.engine.run_folder import refuse_used


def main() -> None:
    arguments = _arguments()
    with reporting():
        os.environ |= rank_environment(os.environ)
        spec = read_spec(arguments.spec, arguments.set)
        if not arguments.resume and os.environ["RANK"] == "0":
            refuse_used(spec.train.run)
        code = _train(spec, resume=arguments.resume)
    if code:
        leave(code)


def _train(spec: Spec, *, resume: bool) -> int:
    """Trains the spec, in one run or in those of its procedure; the exit code."""
    from di4c.engine import ranks
    from di4c.engine.allocator import keep_freed_memory
    from di4c.engine.determinism import deterministic
    from di4c.procedure.carry_out import carry_out

    keep_freed_memory()
    with deterministic(spec.train.deterministic):  # before CUDA starts
        result = carry_out(spec, device=ranks.start(), resume=resume)
        ranks.finish()
    return 0 if result.finished else ranks.STOPPED_BY_SIGNAL


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, metavar="YAML", help="what to train")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, e.g. train.steps=100")
    parser.add_argument("--resume", action="store_true", help="continue from the run's last good checkpoint, if it has one")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    main()
