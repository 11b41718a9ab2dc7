"""Who comes in while strangers crowd the door: how the others fare. ``python -m bench.door``."""
