"""What every test file here shares: daemons and upstreams that a test cannot leave behind, and TAP output."""

import os
import sys
import unittest

from daemon import Daemon, Upstream

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "abi"))
import tap  # noqa: E402

run = tap.main


def needs(feature):
    """Skips what the daemon was built without."""
    there = feature in os.environ.get("FWD_FEATURES", feature).split()
    return unittest.skipUnless(there, f"built without {feature}: its directives are NOT tested")


class Case(unittest.TestCase):
    def daemon(self, corefile, *arguments, **kwargs):
        daemon = Daemon(corefile, *arguments, **kwargs)
        ends = (0,) if kwargs.get("started", True) else (0, 1)  # a sanitizer that found something ends with 1 as well
        self.addCleanup(lambda: self.assertIn(daemon.stop(), ends, daemon.errors))
        return daemon

    def upstream(self, *args):
        upstream = Upstream(*args)
        self.addCleanup(upstream.close)
        return upstream

    def forwarder(self, upstream=None, log="errors", options="", **kwargs):
        """A daemon that forwards everything to an upstream."""
        upstream = upstream or self.upstream()
        return self.daemon(
            f".:0 {{\n bind 127.0.0.1\n {log}\n forward . {upstream.address} {{\n max_fails 0\n {options}\n }}\n}}\n",
            **kwargs,
        )
