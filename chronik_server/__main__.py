"""`python -m chronik_server`: the command line, for where no `chronik` script is on the PATH."""

from chronik_server.cli import main

if __name__ == "__main__":
    main()
