"""MP4 as a container: reading its index, choosing samples, and writing a new file around the same samples."""
