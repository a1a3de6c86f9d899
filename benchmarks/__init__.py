"""Benchmarks and measured runs; each prints what it measured and writes it beside itself."""
