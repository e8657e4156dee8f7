"""How many components a trained student needs: python tools/advise.py --run RUN [--sizes 4,8,16,32,64]"""

import sys

from di4c.commands.advise import main

if __name__ == "__main__":
    sys.exit(main())
