"""Corefiles of the kinds that operators publish (corefiles/): validated as they are, then run against scripted upstreams.

A file's comments say what is expected:
    # ask NAME [TYPE] -> WHERE|WHERE...   the query arrives at one of these addresses (/udp or /tcp: that way), or gets this RCODE
    # refused: TEXT                       the file is refused with this text
    # env NAME=VALUE ...                  the environment

Directives that CoreDNS has and the daemon has not are refused, with a line that names the way to have them; without them the file is
valid. For the run every address of a TO becomes a scripted upstream, every port of a key one that was free just now, and addresses to
bind and to be watched at become loopback ones.
"""

import glob
import os
import random
import re
import socket
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "resolver"))
import suite  # noqa: E402
import wire  # noqa: E402
from daemon import Upstream, answer_a, validate  # noqa: E402

TYPES = {"A": 1, "SOA": 6, "PTR": 12, "AAAA": 28, "SRV": 33, "DS": 43}
RCODES = {"REFUSED": 5, "SERVFAIL": 2}
KNOWN = {}


def known(directive):
    """Whether the daemon has the directive; it says so itself."""
    if directive not in KNOWN:
        KNOWN[directive] = "Unknown directive" not in validate(f". {{\n{directive}\n}}\n").stderr
    return KNOWN[directive]


def uncommented(words):
    return words[: next((i for i, word in enumerate(words) if word.startswith("#")), len(words))]


class Corefile:
    """A file's text, and what its comments say."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.text = file.read()
        self.asks = [(name, TYPES[qtype or "A"], where.split("|"))
                     for name, qtype, where in re.findall(r"^# ask (\S+)(?: (\S+))? -> (\S+)$", self.text, re.M)]
        self.refused = re.findall(r"^# refused: (.*)$", self.text, re.M)
        self.env = dict(pair.split("=", 1) for line in re.findall(r"^# env (.*)$", self.text, re.M) for pair in line.split())

    def foreign(self):
        """The first directive that the daemon does not have, and its line; None when it has them all."""
        return next(((word, number) for word, number, _ in self.directives() if not known(word)), None)

    def directives(self):
        """(word, number of the line, lines it takes) for each directive of a server block."""
        depth, taken = 0, []
        for number, line in enumerate(self.text.split("\n")):
            words = uncommented(line.split())
            if depth >= 1 and words and words != ["}"] or depth > 1:
                taken.append((number, words))
            depth += (words[-1:] == ["{"]) - (words == ["}"])
            if taken and depth <= 1:
                yield taken[0][1][0].strip('"'), taken[0][0] + 1, [row for row, _ in taken]
                taken = []

    def reduced(self):
        """The text without what the daemon does not have."""
        lines = self.text.split("\n")
        for word, _, taken in self.directives():
            if word != "import" and not known(word):
                for number in taken:
                    lines[number] = ""
        return "\n".join(lines)


class Noting(Upstream):
    """An upstream that keeps how each query came."""

    def __init__(self):
        self.came = []
        super().__init__(answer_a)

    def note(self, query, peer):
        self.came.append((query, peer[0]))
        return super().note(query, peer)


def free_port():
    """A port that is free for UDP and TCP, below those that the kernel hands out, lest an upstream gets it before the daemon does."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                udp.bind(("0.0.0.0", port))
                tcp.bind(("0.0.0.0", port))
                return port
            except OSError:
                continue


class Loopback:
    """Rewrites a Corefile so that it can be run here."""

    def __init__(self, case, text, env):
        self.case, self.env = case, env
        self.upstreams, self.hosts, self.ports = {}, {}, {}
        for name, value in env.items():
            text = text.replace("{$" + name + "}", value)
        text = re.sub(r"\{\$\w+\}", "", text)
        self.text = "\n".join(map(self.line, text.split("\n")))

    def line(self, line):
        words = uncommented(line.split())
        if words[:1] == ["bind"]:
            return "bind " + " ".join(self.host(word) for word in words[1:])
        if words and words[0] in ("health", "ready", "prometheus"):
            place = words[1] if len(words) > 1 and words[1] != "{" else "default"
            return f"{words[0]} 127.0.0.1:{self.port(words[0] + place)} {'{' if words[-1] == '{' else ''}"
        if words[:1] == ["forward"]:
            return " ".join(words[:2] + [self.target(word.strip('"')) if word != "{" else word for word in words[2:]])
        if words and (words[-1] == "{" and not line[0].isspace() or line == "." or line.endswith(",")):
            return " ".join(self.key(word) for word in words)
        return line

    def host(self, word):
        """A loopback address of its own for each address."""
        return self.hosts.setdefault(word, f"127.0.0.{10 + len(self.hosts)}")

    def target(self, word):
        """The scripted upstream that stands for an address."""
        if word not in self.upstreams:
            self.upstreams[word] = Noting()
            self.case.addCleanup(self.upstreams[word].close)
        return self.upstreams[word].address

    def key(self, word):
        """A key on a free port, the same for all keys of one."""
        if word in ("{", "import") or word.startswith("("):
            return word
        zone, _, port, comma = re.fullmatch(r'"?(.*?)(:(\d+))?"?(,?)', word.removeprefix("dns://")).groups()
        if "::/" in word:
            zone, port = word, None
        return f"{zone}:{self.port(port or '53')}{comma}"

    def port(self, what):
        """A free port for a port of the file, or for a directive's address."""
        if what not in self.ports:
            self.ports[what] = free_port()
        return self.ports[what]

    def reached(self, name):
        """ADDRESS/udp or ADDRESS/tcp for each query for a name that arrived."""
        question = wire.name(name)
        return [f"{address}/{way}" for address, upstream in self.upstreams.items() for query, way in upstream.came if query[12:].startswith(question)]


class Corefiles(suite.Case):
    """One test for each file, made below."""

    def check_text(self, corefile):
        """As it is published."""
        result = validate(corefile.text, "-json", env=corefile.env)
        foreign = corefile.foreign()
        if foreign:
            word, line = foreign
            self.assertEqual(result.returncode, 1)
            self.assertIn(f":{line} - Error during parsing: Unknown directive '{word}'\n'{word}' is a plugin of CoreDNS", result.stderr)
        elif corefile.refused:
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stderr.strip().split("\n")[-1], corefile.refused[0])
        else:
            self.valid(result, corefile)

    def valid(self, result, corefile):
        if "tls://" in corefile.text or "https://" in corefile.text:
            self.assertTrue(result.returncode == 0 or "not supported by this version" in result.stderr, result.stderr)
        else:
            self.assertEqual(result.returncode, 0, result.stderr)

    def run_asks(self, corefile):
        """The queries of the comments, against scripted upstreams."""
        loopback = Loopback(self, corefile.reduced(), corefile.env)
        daemon = self.daemon(loopback.text)
        host = next(iter(loopback.hosts.values()), "127.0.0.1")
        for name, qtype, where in corefile.asks:
            reply = wire.Message(daemon.udp(wire.query(name, qtype), loopback.port("53"), host))
            reached = loopback.reached(name)
            if where[0] in RCODES:
                self.assertIn(reply.rcode, [RCODES[word] for word in where], name)
                self.assertEqual(reached, [], name)
            else:
                self.assertEqual(reply.rcode, 0, name)
                self.assertEqual(len(reached), 1, f"{name}: {reached}")
                self.assertTrue(any(f"{reached[0]}/".startswith(f"{address}/") for address in where), f"{name}: {reached}")


def make(path):
    def test(self):
        corefile = Corefile(path)
        self.check_text(corefile)
        reduced = validate(corefile.reduced(), env=corefile.env)
        if not corefile.refused:
            self.valid(reduced, corefile)
        if corefile.asks:
            self.run_asks(corefile)
    return test


for corefile_path in sorted(glob.glob(os.path.join(HERE, "corefiles", "*.Corefile"))):
    title = os.path.basename(corefile_path).split(".")[0].replace("-", "_")
    setattr(Corefiles, f"test_{title}", make(corefile_path))


if __name__ == "__main__":
    suite.run()
