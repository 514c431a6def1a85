"""One command per module; ``benchmarks.cli`` registers them."""
