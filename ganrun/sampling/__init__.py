"""A generator with its noise, and what becomes of its samples: files, films, interpolations."""
