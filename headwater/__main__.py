"""Run the command as `python -m headwater`."""

from headwater.cli import main

main()
