"""The frame codec: masks, UTF-8, frames out, frames in (RFC 6455 section 5).

Takes the body that :mod:`plumews._compiled` selected: ``_codec``, or ``protocol.pure``. Both have one API and behave
the same. Invariant: no other module imports ``_codec``, except compiled short ways, which cimport its types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _compiled

if TYPE_CHECKING or _compiled.BODY == "pure":
    from .pure.parser import *  # noqa: F403
else:
    from .._codec import *  # noqa: F403
