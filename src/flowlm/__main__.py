"""python -m flowlm."""

import sys

from flowlm.cli import main

if __name__ == "__main__":
    sys.exit(main())
