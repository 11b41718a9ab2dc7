"""Opening handshakes of clients while strangers crowd the server: ``python -m bench.door``."""
