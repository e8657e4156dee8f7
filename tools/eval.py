"""Compares a run with its teacher: python tools/eval.py --run RUN --out DIR [--steps 1,2,4] [--also NAME=RUN]…

Also runs under deepspeed, torchrun and srun on several devices. An interrupted call continues where it was.
"""

from di4c.commands.evaluate import main

if __name__ == "__main__":
    main()
