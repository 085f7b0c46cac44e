"""The program `python -m mixlab`: the command line of the tree that comes first on the path."""

import sys

from mixlab import main

if __name__ == "__main__":
    sys.exit(main())
