"""The ``plumews`` command.

`connect` is the client with its options and its output. `serve` is the room server. `options` and `inputs` belong to
`serve`. From them the client takes what prints a line and what checks a value.

May import every package. Exports nothing: the entry point is ``plumews.cli.main:main``.
"""
