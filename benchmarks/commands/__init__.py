"""One command a module; ``benchmarks.cli`` registers them."""
