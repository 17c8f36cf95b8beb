"""Technique and vocabulary that every service stands on; no product decision lives here."""
