"""Trains what a spec describes: deepspeed tools/train.py --spec SPEC [--set a.b=c]… [--resume]

Also runs under torchrun and srun, and as plain `python tools/train.py` on one device.
"""

from di4c.commands.train import main

if __name__ == "__main__":
    main()
