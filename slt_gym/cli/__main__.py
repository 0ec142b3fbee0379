"""Make ``python -m slt_gym.cli`` the same as ``slt-gym``."""

from slt_gym.cli import main

if __name__ == "__main__":
    main()
