"""From a config to a run: building, fitting, resuming, several processes, and how it ends."""
