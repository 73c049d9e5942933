"""Scores of generated samples against real ones: features, summaries of each side, metrics, and their protocol."""
