"""The smallest host: one query on the command line."""

import os
import subprocess

import suite
from daemon import PATIENCE


class Minimal(suite.Case):
    def minimal(self, *arguments):
        return subprocess.run(
            [os.environ["FWD_MINIMAL"], *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def test_answer(self):
        upstream = self.upstream()
        result = self.minimal(os.environ["FWD_MODULE"], f"forward . {upstream.address}", "www.a.test")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "44 octets, rcode 0, 1 answers\n", ""))

    def test_no_answer(self):
        upstream = self.upstream(lambda query: None)
        text = f"forward . {upstream.address} {{\n read_timeout 20ms\n max_connect_attempts 1\n}}\n"
        result = self.minimal(os.environ["FWD_MODULE"], text, "www.a.test")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"^no answer: .*i/o timeout")

    def test_errors(self):
        module = os.environ["FWD_MODULE"]
        for arguments, error in [
            ([], "usage: "),
            ([module, "forward . 127.0.0.1", "a..b"], "usage: "),
            (["/no/such.so", "forward . 127.0.0.1", "a.test"], "/no/such.so: "),
            ([module, "forward .", "a.test"], "configuration: plugin/forward: argument:1 - Error during parsing"),
            ([module, "forward b.test 127.0.0.1", "a.test"], "serve: not accepted"),
        ]:
            result = self.minimal(*arguments)
            self.assertEqual(result.returncode, 1)
            self.assertTrue(result.stderr.startswith(error), result.stderr)

    def test_is_short(self):
        """It is what a newcomer reads first."""
        root = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(root, "..", "..", "examples", "minimal", "minimal.c"), encoding="utf-8") as file:
            self.assertLess(len(file.readlines()), 150)


if __name__ == "__main__":
    suite.run()
