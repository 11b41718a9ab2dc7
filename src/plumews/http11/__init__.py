"""HTTP/1.1 request and response of the opening handshake, without I/O.

It parses requests, checks origins and proxies, builds responses, and keeps secrets out of logs. May import the root
vocabulary. Exports nothing: import its modules.
"""
