"""RFC 6455 without I/O: bytes to frames and messages and back, and the rules of closing.

May import the root vocabulary. Exports nothing: import its modules.
"""
