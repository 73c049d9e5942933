"""Configs: groups and options, Hydra, checks, how places are typed, which classes a file may name."""
