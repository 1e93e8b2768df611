"""Lets `python -m pytraceprop` run the commands."""

import sys

from pytraceprop.cli import main

sys.exit(main())
