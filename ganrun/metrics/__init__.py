"""Scores of generated samples against real ones: metric(real, fake) -> float, lower is better."""
