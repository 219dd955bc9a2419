"""`python -m hvbench` is `hvbench`."""

from __future__ import annotations

from hvbench.cli import main

if __name__ == "__main__":
    main()
