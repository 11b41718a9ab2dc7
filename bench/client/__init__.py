"""Clients beside each other, against uWebSockets and our own server. ``python -m bench.client``."""
