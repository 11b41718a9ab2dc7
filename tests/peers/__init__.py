"""The clients of other WebSocket implementations, behind one interface: what `test_peers` talks through."""
