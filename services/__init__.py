"""The services. They share floors, never each other."""
