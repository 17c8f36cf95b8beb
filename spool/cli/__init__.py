"""The command line. `main` is the console script `spool`."""

from __future__ import annotations

from spool.cli.app import main

__all__ = ["main"]
