"""Whole servers beside each other: echo, idle connections, connects, system calls. ``python -m bench.echo``."""
