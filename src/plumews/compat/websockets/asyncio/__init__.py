"""Asyncio API of the `websockets` package: ``server`` and ``router``."""
