"""Watching for a collapse: what is seen, what counts, what follows."""
