"""Import paths and names of other packages, over plumews: ``plumews.compat.websockets``.

May import the root vocabulary, the packages up to ``conn``, and ``server``. Exports nothing: programs import the
modules below it. Nothing imports this package, so it costs nothing unless a program does.
"""

from __future__ import annotations
