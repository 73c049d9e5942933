"""What the curves of a run mean: rules over its files, each with its source. Without torch, and without its data."""
