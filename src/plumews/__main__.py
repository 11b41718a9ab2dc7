"""`python -m plumews` is the command `plumews` (layer 6)."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
