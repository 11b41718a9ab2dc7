"""HTTP/1.1 request and response of the opening handshake, without I/O.

It parses requests (`parser`) and responses (`response_parser`), checks them (`handshake`, `origin`, `proxies`), builds
responses (`models`), and keeps secrets out of logs (`redaction`). May import the root vocabulary. Exports nothing:
import its modules.
"""
