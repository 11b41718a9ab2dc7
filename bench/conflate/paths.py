"""Network between client and server: a link with a delay, and nginx.

The link is a relay with a little memory: what it has read leaves half a round trip later, and it reads no more while it
holds ``window`` bytes. The kernels at its ends add some kilobytes.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

NGINX = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)

CONFIG = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{to}; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 600s;
    }}
  }}
}}
"""


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


@contextlib.contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def nginx(to: int) -> Iterator[int]:
    """A proxy in front of port ``to``, with the settings that its documentation gives for WebSockets; its port."""
    assert NGINX is not None
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(CONFIG.format(folder=folder, port=port, to=to))
        command = [NGINX, "-p", folder, "-c", str(config)]
        with _stopped(subprocess.Popen(command, stderr=subprocess.DEVNULL)):
            _wait_for(port)
            yield port


@contextlib.contextmanager
def link(to: int, round_trip: float, window: int) -> Iterator[int]:
    """A link to port ``to``; its port."""
    port = _free_port()
    command = [sys.executable, "-m", "bench.conflate.paths", str(port), str(to), str(round_trip), str(window)]
    with _stopped(subprocess.Popen(command)):
        _wait_for(port)
        yield port


# --- the relay, in a process of its own -----------------------------------------------------------


def _carry(source: socket.socket, target: socket.socket, delay: float, window: int) -> None:
    held: deque[tuple[float, bytes]] = deque()
    changed = threading.Condition()
    size = 0

    def deliver() -> None:
        nonlocal size
        while True:
            with changed:
                while not held:
                    changed.wait()
                due, data = held[0]
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
            except OSError:
                return
            with changed:
                held.popleft()
                size -= len(data)
                changed.notify_all()

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    data = b"x"
    while data and thread.is_alive():
        with changed:
            while size >= window and thread.is_alive():
                changed.wait(1)
        try:
            data = source.recv(16 * 1024)
        except OSError:
            data = b""
        with changed:
            held.append((time.monotonic() + delay, data))
            size += len(data)
            changed.notify_all()


def _relay(port: int, to: int, round_trip: float, window: int) -> None:
    listening = socket.create_server(("127.0.0.1", port))
    while True:
        ours, _ = listening.accept()
        theirs = socket.socket()
        for sock in (ours, theirs):
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, window)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        theirs.connect(("127.0.0.1", to))
        for source, target in ((ours, theirs), (theirs, ours)):
            threading.Thread(target=_carry, args=(source, target, round_trip / 2, window), daemon=True).start()


if __name__ == "__main__":
    _relay(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
