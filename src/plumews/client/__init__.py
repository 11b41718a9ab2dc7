"""The WebSocket client.

May import the packages up to ``conn``.
"""
