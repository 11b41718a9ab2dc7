"""Whole servers with permessage-deflate beside each other: echo, broadcast, memory. ``python -m bench.deflate``."""
