"""`python -m flowtop` is the same command as `flowtop`."""

from flowtop.cli.main import main

if __name__ == "__main__":
    main()
