"""Data sets: each reads samples by index into a batch {"real": ..., "label": ...}."""
