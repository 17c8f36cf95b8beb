"""The inbox keeps: work is a row, claimed under a lease, finished in one transaction."""
