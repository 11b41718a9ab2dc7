"""The frame codec: masks, UTF-8, frames out, frames in (RFC 6455 section 5).

Takes the body that :mod:`plumews._compiled` selected: ``_codec``, or ``protocol.pure``. Both have one API and behave
the same. Invariant: no other module imports ``_codec``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _compiled

__all__ = [
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

if TYPE_CHECKING or _compiled.BODY == "pure":
    from .pure.parser import (
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
    from .._codec import (
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
