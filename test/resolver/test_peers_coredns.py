"""CoreDNS behind tls:// and https://: the binary that FWD_COREDNS names, or one that Go builds; skipped, loudly, where there is neither."""

import os
import shutil
import subprocess
import sys
import tempfile

import suite
from peers import Peers

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "coredns")


def build(directory):
    """Stock CoreDNS as examples/coredns/build makes it. @return its path, None where it cannot be built"""
    binary = os.path.join(directory, "coredns")
    if shutil.which("go") is None:
        return None
    made = subprocess.run(["go", "build", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", binary, "./stock"], cwd=SOURCE,
                          env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        print(f"# Go does not build CoreDNS: {made.stderr[:300]}", file=sys.stderr)
        return None
    return binary


class CoreDNS(Peers):
    program = "coredns"
    built = None

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.built = os.environ.get("FWD_COREDNS") or build(directory.name)

    @classmethod
    def binary(cls):
        return cls.built


del Peers

if __name__ == "__main__":
    suite.run()
