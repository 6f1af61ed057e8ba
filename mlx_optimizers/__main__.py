"""``python -m mlx_optimizers``: the same as the command ``mlx-optimizers``."""

import sys

from mlx_optimizers.cli import main

if __name__ == "__main__":
    sys.exit(main())
