"""One folder for each command, with `run(args)`; the first line of its docstring is its help."""
