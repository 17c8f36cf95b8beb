"""What the clipper decides. Pure and synchronous: no clock, no I/O."""
