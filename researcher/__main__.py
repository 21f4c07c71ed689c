"""python -m researcher: see commands.py."""
import sys

from researcher.commands import main

if __name__ == '__main__':
    sys.exit(main())
