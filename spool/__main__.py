"""`python -m spool`: the command line, also where the console script is not on the PATH."""

from __future__ import annotations

from spool.cli import main

if __name__ == "__main__":
    main()
