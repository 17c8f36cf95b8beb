"""How a process of Spool starts, is wired, serves and stops."""
