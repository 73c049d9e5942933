"""One file a command, `run(args)` in each; the first line of its docstring is its help."""
