#!/usr/bin/env python3
"""The module exports exactly one symbol: symbols.py NM forward.so"""

import subprocess
import sys

EXPECTED = ["fwd_module_entry"]

lines = subprocess.run([sys.argv[1], "-D", "--defined-only", "--format=posix", sys.argv[2]],
                       capture_output=True, text=True, check=True).stdout.splitlines()
# The version node itself is an absolute symbol; what follows @ is the version.
names = sorted(line.split()[0].split("@")[0] for line in lines if line.split()[1] != "A")
if names != EXPECTED:
    sys.exit(f"{sys.argv[2]} exports {names}, not {EXPECTED}")
