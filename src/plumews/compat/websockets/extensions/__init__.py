"""Extensions of the `websockets` package, which plumews has as ``compression``."""
