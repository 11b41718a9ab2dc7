"""Blocking API of the `websockets` package, which plumews does not have."""
