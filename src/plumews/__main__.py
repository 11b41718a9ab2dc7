"""Entry point of ``python -m plumews``, which is the command ``plumews``."""

from __future__ import annotations

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
