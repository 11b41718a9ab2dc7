"""The codec beside its peers. ``python -m bench.codec`` measures, judges by the bars, and writes the results."""
