"""Why a hub refused, as a word to count by (layer 2).

Each exception of a hub is a reason, read from the tree in `errors`: one that is added there cannot be forgotten here,
and what an application derives from them makes no new words.
"""

from __future__ import annotations

import re
from typing import Final

from .. import errors
from ..counters import OTHER

__all__ = ["REASONS", "reason_of"]


def _word(cls: type[Exception]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


_WORDS: Final = {
    cls: _word(cls)
    for cls in vars(errors).values()
    if cls is errors.ConnectionClosed
    or (isinstance(cls, type) and issubclass(cls, errors.HubError) and cls is not errors.HubError)
}

#: All reasons: ``hub_full``, ``room_full``, ``connection_closed`` and so on.
REASONS: Final = tuple(_WORDS.values())


def reason_of(refusal: Exception) -> str:
    """The word for ``refusal``."""
    return next((_WORDS[cls] for cls in type(refusal).__mro__ if cls in _WORDS), OTHER)
