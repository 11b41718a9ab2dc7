"""RFC 6455 without I/O: bytes to frames and messages and back, and the rules of closing.

`state` builds the close frames of a connection. `pure.frame_reader` and ``pxi/parser.pxi`` remove the masks of what
arrives, with the functions of ``masking``. ``pxi/message_buffer.pxi`` is the memory of the arriving message.

May import the root vocabulary. Exports nothing: import its modules.
"""
