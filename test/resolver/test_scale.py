"""Very many stanzas, except names and server blocks: the right one is found, and none takes more memory than it may. What they cost in
time is measured by test/bench/scale."""

import os
import random
import signal
import socket
import unittest

import suite
import wire
from wire import Message

MANY = 20000
SOME_BLOCKS = 1000
PLAIN = os.environ.get("FWD_PATIENCE", "1") == "1"  # a sanitizer keeps memory of its own beside each


def resident(server):
    with open(f"/proc/{server.process.pid}/statm", encoding="ascii") as text:
        return int(text.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def block(lines):
    return ".:0 {\n bind 127.0.0.1\n errors\n" + "".join(f" {line}\n" for line in lines) + "}\n"


class Scale(suite.Case):
    def setUp(self):
        self.first, self.second = self.upstream(), self.upstream()

    def check(self, server, name, upstream):
        other = self.second if upstream is self.first else self.first
        mine, others = len(upstream.queries), len(other.queries)
        self.assertEqual(Message(server.udp(wire.query(name))).rcode, wire.NOERROR, name)
        self.assertEqual((len(upstream.queries), len(other.queries)), (mine + 1, others), name)

    def test_case_41_order_of_many_stanzas(self):
        """The first of the file matches, whether it is the same zone, one above, or one below."""
        count = 2000
        lines = [f"forward zone{i}.test {self.first.address}" for i in range(count)]
        lines += [f"forward zone{i}.test {self.second.address}" for i in range(count)]
        lines += [f"forward test {self.second.address}"]
        lines += [f"forward late{i}.test {self.first.address}" for i in range(count)]
        server = self.daemon(block(lines))
        for i in random.Random(1).sample(range(count), 20):
            self.check(server, f"a.zone{i}.test", self.first)
            self.check(server, f"late{i}.test", self.second)
        self.check(server, f"zone{count}.test", self.second)

    def test_many_except_names(self):
        names = "\n".join(f"  except zone{i}.test" for i in range(MANY))
        server = self.daemon(block([f"forward . {self.first.address} {{\n{names}\n }}", f"forward . {self.second.address}"]))
        for i in random.Random(1).sample(range(MANY), 20):
            self.check(server, f"a.zone{i}.test", self.second)
        self.check(server, f"zone{MANY}.test", self.first)

    def test_case_93_many_server_blocks(self):
        """The longest suffix wins, before and after a reload."""
        long = ".".join(["label"] * 20) + ".test"
        keys = [f"zone{i}.test" for i in range(SOME_BLOCKS)] + [long]
        text = "".join(f"{key}:0 {{\n bind 127.0.0.1\n forward . {self.first.address}\n}}\n" for key in keys)
        server = self.daemon(text + f"test:0 {{\n bind 127.0.0.1\n forward . {self.second.address}\n}}\n")
        for _ in range(2):
            for i in random.Random(1).sample(range(SOME_BLOCKS), 20):
                self.check(server, f"a.zone{i}.test", self.first)
                self.check(server, f"azone{i}.test", self.second)
            self.check(server, f"a.{long}", self.first)
            self.check(server, long[len("label."):], self.second)
            server.signal(signal.SIGUSR1)
            server.wait_line("Reloading complete")

    def test_case_93_bursts_at_many_zones(self):
        """Datagrams that come together, between them such as are no queries: each query goes where it would go alone."""
        blocks = [" ".join(f"zone{i}.test:0" for i in range(start, MANY, 2)) for start in (0, 1)]
        server = self.daemon("".join(f"{keys} {{\n bind 127.0.0.1\n forward . {upstream.address}\n}}\n"
                                     for keys, upstream in zip(blocks, (self.first, self.second))))
        chosen = random.Random(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect(("127.0.0.1", server.port))
            for _ in range(5):
                zones = chosen.sample(range(MANY), 60)
                expected = [len(upstream.queries) + sum(i % 2 == n for i in zones) for n, upstream in enumerate((self.first, self.second))]
                server.signal(signal.SIGSTOP)
                for ident, i in enumerate(zones):
                    query = wire.query(f"a.zone{i}.test", ident=ident)
                    sock.send(query)
                    sock.send(b"\0\0\x80" + chosen.randbytes(chosen.randrange(400)))  # a response: nobody answers it
                    sock.send(query[: chosen.randrange(12)])
                server.signal(signal.SIGCONT)
                replies = [Message(sock.recv(65535)) for _ in zones]
                self.assertEqual({(reply.id, reply.rcode) for reply in replies}, {(ident, wire.NOERROR) for ident in range(len(zones))})
                self.assertEqual([len(self.first.queries), len(self.second.queries)], expected)

    @unittest.skipUnless(PLAIN, "memory is measured without a sanitizer")
    def test_memory_of_a_stanza(self):
        """At most 1 KiB each whose upstream is shared, and nothing left of making them."""
        one = resident(self.daemon(block([f"forward . {self.first.address}"])))
        server = self.daemon(block([f"forward zone{i}.test {self.first.address}" for i in range(MANY)]))
        self.assertLess((resident(server) - one) / MANY, 1024)


if __name__ == "__main__":
    suite.run()
