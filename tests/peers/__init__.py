"""Clients and servers of other WebSocket implementations: what `test_peers` and `test_client_peers` talk to."""
