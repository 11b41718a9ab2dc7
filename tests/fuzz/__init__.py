"""Fuzz targets of the codec: plain functions of bytes, which tests replay and atheris drives."""

from __future__ import annotations

from .reading import reading
from .tools import tools

TARGETS = {"reading": reading, "tools": tools}
