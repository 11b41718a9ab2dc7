"""The frame codec: masks, UTF-8, frames out, frames in (layer 1; RFC 6455 section 5).

Picks one of two bodies with one API: the compiled ``_codec``, or ``_codec_py`` where that was not built or
where the environment has ``PLUMEWS_PURE`` (neither empty nor "0"). Invariant: nothing else imports
``_codec*``, and nothing can tell the two apart but by their speed. What it picks holds for the package: the package
imports this module first, and where it is pure, so is everything that is imported after it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from .sources import all_compiled, only_sources

__all__ = [
    "BODY",
    "Parser",
    "Utf8Validator",
    "build_batch",
    "build_frame",
    "build_header",
    "fragment",
    "mask",
    "mask_inplace",
    "new_mask",
]

#: Which body this process uses.
BODY: Literal["compiled", "pure"] = "pure"

if TYPE_CHECKING or os.environ.get("PLUMEWS_PURE", "") not in ("", "0") or not all_compiled():
    from ._codec_py import (
        Parser,
        Utf8Validator,
        build_batch,
        build_frame,
        build_header,
        fragment,
        mask,
        mask_inplace,
        new_mask,
    )
else:
    try:
        from ._codec import (
            Parser,
            Utf8Validator,
            build_batch,
            build_frame,
            build_header,
            fragment,
            mask,
            mask_inplace,
            new_mask,
        )

        BODY = "compiled"
    except ImportError:
        from ._codec_py import (
            Parser,
            Utf8Validator,
            build_batch,
            build_frame,
            build_header,
            fragment,
            mask,
            mask_inplace,
            new_mask,
        )

if BODY == "pure":
    only_sources()
