"""Broadcasts of whole servers beside each other: rooms of many members. ``python -m bench.broadcast``."""
