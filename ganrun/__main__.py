"""`python -m ganrun`: the command `ganrun`, where it is not on the PATH."""

from ganrun.cli import main

if __name__ == "__main__":
    main()
