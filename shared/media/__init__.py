"""Cutting, decoding and proving of media. Whatever comes in is untrusted."""
