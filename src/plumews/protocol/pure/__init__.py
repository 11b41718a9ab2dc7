"""The codec in plain Python: what runs if the compiled one was not built or is not wanted.

May import the root vocabulary. Exports nothing: :mod:`plumews.protocol.codec` selects the body.
"""
