"""What can be seen of Spool from outside: logs, metrics, traces."""
