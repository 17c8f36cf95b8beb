"""Cuts an exact UTC range out of recorded sources."""
