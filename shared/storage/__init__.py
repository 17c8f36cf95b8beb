"""Objects under keys: streamed in by ranges, streamed out in parts, visible only when whole."""
