"""Benchmarks: ours against named alternatives, in one run."""
