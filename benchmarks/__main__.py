"""The short benchmarks, one after the other: `python -m benchmarks`."""

import subprocess
import sys

SHORT = ("search", "trained_index", "queries", "ingest", "freshness", "swap", "refresh", "overload", "speed")


def main() -> int:
    """Run each in a process of its own; return the first exit status that is not 0."""
    for name in SHORT:
        print(f"{name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
