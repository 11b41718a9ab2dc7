"""Blocking API of the `websockets` package: ``client`` and ``connection``."""
