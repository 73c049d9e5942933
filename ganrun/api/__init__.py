"""ganrun from Python and from notebooks: the same overrides, checks, runs and errors as on the command line."""
