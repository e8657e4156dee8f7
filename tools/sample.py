"""Draws samples of a trained model: python tools/sample.py --run RUN --steps 2 --num 64 --out x.png"""

from di4c.commands.sample import main

if __name__ == "__main__":
    main()
