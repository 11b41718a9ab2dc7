"""Measurements: what plumews costs, beside its peers in the same run. README.md says how to run them."""
