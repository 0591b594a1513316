"""`python -m ccs_stream.cli`: the `ccs-stream` command."""

from ccs_stream.cli import main

if __name__ == "__main__":
    main()
