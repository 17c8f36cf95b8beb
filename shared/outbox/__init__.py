"""The outbox tells: what was committed is published, at least once, in order per subject."""
