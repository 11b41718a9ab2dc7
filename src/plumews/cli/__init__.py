"""The ``plumews`` command.

May import every package. Exports nothing: the entry point is ``plumews.cli.main:main``.
"""
