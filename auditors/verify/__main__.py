"""Run by itself: as `python -m auditors.verify`, or copied out as `python -I verify`."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    if not __package__:
        # Started by its path: the folder above is where this package is imported from.
        sys.path[0] = str(folder.parent)
    command = importlib.import_module(f"{__package__ or folder.name}.command")
    sys.exit(command.main(sys.argv[1:]))
