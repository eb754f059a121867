"""`python -m ewms` is the `ewms` command."""

from ewms.cli import main

if __name__ == "__main__":
    main(prog_name="ewms")
