"""The tests that use Seaway from the outside, each a module: `python -m tests.kill --rounds 20`, in the repository's root
and with the Python that `tests/setup python` makes. Those that need a server are run by `python -m tests.server -- ...`.
"""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What `tests/setup` has installed.
TOOLS = pathlib.Path(os.environ.get("SEAWAY_TOOLS", ROOT / ".tools")).resolve()
