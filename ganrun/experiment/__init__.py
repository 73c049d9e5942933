"""From a command line to a run: compose, check, build, fit; resume, sweep and report."""
