"""``python -m attribution`` is the command ``attribution``."""

import sys

from attribution.cli import main

if __name__ == "__main__":
    sys.exit(main())
