"""Shared parts of the server benchmarks: processes, compiled helpers, rounds, command lines."""
