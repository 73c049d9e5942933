"""Configs: groups and options, Hydra, checks, paths as typed, and the classes that a file may name."""
