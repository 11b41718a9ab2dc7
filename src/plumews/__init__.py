"""plumews: WebSockets with rooms, as fast as the machine allows."""

__version__ = "0.1.0"
