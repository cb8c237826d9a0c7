"""`python -m fastprod`: the command line, the same as `fastprod`."""

import sys

from fastprod.cli import main

if __name__ == "__main__":
    sys.exit(main())
