"""Legacy API of the `websockets` package: ``server`` and ``exceptions``."""
