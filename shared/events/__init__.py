"""The published language: one file per noun, an envelope around all."""
