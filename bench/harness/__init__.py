"""What the benchmarks of whole servers share: processes, compiled helpers, rounds, command line, and the document."""
