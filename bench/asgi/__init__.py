"""ASGI applications under uvicorn, on our WebSocket class and on its own. ``python -m bench.asgi``."""
