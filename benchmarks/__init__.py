"""Benchmarks and measured runs; each prints what it measured and writes it beside itself."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the `headwater` command does
