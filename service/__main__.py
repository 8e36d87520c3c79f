"""`python -m service` is the console command `ovsam`."""

from service.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
