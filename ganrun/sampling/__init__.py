"""A generator with its noise, and what its samples are made into: files, films, interpolations."""
