"""Echo of picows, for the servers that measure it. Imported where picows is installed."""

from __future__ import annotations

from picows import WSFrame, WSListener, WSMsgType, WSTransport


class Echo(WSListener):
    """Listener that answers each frame with itself, and a close frame with a close frame."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer a frame."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())
