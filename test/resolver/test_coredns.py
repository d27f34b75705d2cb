"""The daemon's replies beside a real CoreDNS's, octet by octet (cases 91 to 94). Skipped unless FWD_COREDNS names a binary."""

import os
import subprocess
import time
import unittest

import suite
import wire
from daemon import PATIENCE, Daemon, free_port
from wire import Message

COREDNS = os.environ.get("FWD_COREDNS")


def upstream_answer(query):
    """The first label says what the upstream sends. Names of small answers are written out, of large ones compressed, as CoreDNS
    would write them, for we relay octets; TXT is printable, as CoreDNS takes an escaped octet for four when it truncates."""
    request = Message(query)
    label = query[13 : 13 + query[12]]
    question = request.questions[0]
    owner = question[:-4]
    txt = [wire.record(b"\xc0\x0c", wire.TXT, b"\x63" + bytes([65 + i]) * 99) for i in range(12)]
    if label == b"plain":
        return wire.message(request.id, wire.QR | wire.RA, [question], [wire.record(owner, wire.A, b"\1\1\1\1")])
    if label == b"opt":
        extra = wire.opt(4096, 0xC0FF, version=0, options=wire.option(15, b"\0\1"))
        return wire.message(request.id, wire.QR | 3, [question], additional=[extra])
    if label == b"badcookie":
        return wire.message(request.id, wire.QR | 7, [question], additional=[wire.opt(4096, rcode=1)])
    if label == b"big":
        return wire.message(request.id, wire.QR, [question], txt)
    if label == b"bigopt":
        return wire.message(request.id, wire.QR, [question], txt, additional=[wire.opt(4096)])
    raise AssertionError(label)


MESSAGES = {
    "no question": wire.message(),
    "two questions": wire.message(questions=[wire.question("a.test")] * 2),
    "two answers": wire.message(questions=[wire.question("a.test")], counts=(1, 2, 0, 0)),
    "one answer promised": wire.query("plain.test", counts=(1, 1, 0, 0)),
    "two authority": wire.message(questions=[wire.question("a.test")], counts=(1, 0, 2, 0)),
    "three additional": wire.query("a.test", additional=[wire.opt()] * 3),
    "opcode 1": wire.query("a.test", flags=1 << 11 | wire.RD),
    "opcode 5, all flags": wire.query("a.test", flags=5 << 11 | 0x07F0),
    "no question, all flags": wire.message(flags=0x07F5),
    "undecodable, all flags": wire.query("a.test", flags=0x07F5, additional=[wire.opt()])[:-1],
    "cut in the question": wire.query("a.test")[:-3],
    "cut in the name": wire.query("a.test")[:-7],
    "cut in the OPT": wire.query("a.test", additional=[wire.opt()])[:-4],
    "option past the end": wire.query("a.test", additional=[wire.opt(options=b"\0\x0a\0\xff\0")]),
    "octets behind the end": wire.query("plain.test") + b"junk",
    "chaos": wire.query("plain.test", wire.TXT, 3),
    "version 1": wire.query("a.test", additional=[wire.opt(1400, wire.DO, version=1)]),
    "version 255, notify": wire.query("a.test", flags=4 << 11 | wire.RD, additional=[wire.opt(1400, version=255)]),
    "refused": wire.query("other.zone"),
    "refused, cd": wire.query("Other.Zone", flags=wire.RD | wire.CD | wire.AD),
    "refused, notify": wire.query("other.zone", flags=4 << 11 | wire.RD | wire.CD),
    "refused, opt": wire.query("other.zone", additional=[wire.opt(1400, 0x87FF)]),
    "refused, small opt": wire.query("other.zone", additional=[wire.opt(100)]),
    "refused, options": wire.query(
        "other.zone",
        additional=[
            wire.opt(options=b"".join(wire.option(code, b"12345678") for code in (3, 5, 10, 65001)))
        ],
    ),
    "plain": wire.query("plain.test"),
    "plain, opt": wire.query("plain.test", additional=[wire.opt(1400, 0x81FF, options=wire.option(10, b"12345678"))]),
    "opt, none": wire.query("opt.test"),
    "opt, opt": wire.query("opt.test", additional=[wire.opt(1400)]),
    "opt, do": wire.query("opt.test", additional=[wire.opt(1400, wire.DO)]),
    "badcookie": wire.query("badcookie.test", additional=[wire.opt(1400)]),
    "big": wire.query("big.test", wire.TXT),
    "big, 1000": wire.query("big.test", wire.TXT, additional=[wire.opt(1000, wire.DO)]),
    "bigopt": wire.query("bigopt.test", wire.TXT),
    "bigopt, 1000": wire.query("bigopt.test", wire.TXT, additional=[wire.opt(1000)]),
    "ds": wire.query("plain.sub.test", wire.DS),
}


@unittest.skipUnless(COREDNS, "FWD_COREDNS names no CoreDNS binary")
class Same(suite.Case):
    @classmethod
    def setUpClass(cls):
        cls.upstream = suite.Upstream(upstream_answer)
        text = "test:{} {{\n bind 127.0.0.1\n forward . {} {{\n max_fails 0\n prefer_udp\n }}\n}}\n"
        cls.ours = Daemon(text.format(0, cls.upstream.address))
        cls.port = free_port()
        conf = os.path.join(cls.ours.directory.name, "coredns")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(text.format(cls.port, cls.upstream.address))
        cls.theirs = subprocess.Popen([COREDNS, "-conf", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not cls.ask(wire.query("plain.test")):
            pass

    @classmethod
    def ask(cls, message):
        try:
            return cls.ours.udp(message, cls.port, timeout=1)
        except ConnectionRefusedError:
            return None

    @classmethod
    def tearDownClass(cls):
        cls.theirs.terminate()
        cls.theirs.wait(PATIENCE)
        cls.upstream.close()
        cls.ours.stop()

    def test_replies_are_equal(self):
        theirs, ours = {}, {}
        for name, message in MESSAGES.items():
            theirs[name] = (self.ask(message) or b"").hex()
            ours[name] = (self.ours.udp(message) or b"").hex()
        self.maxDiff = None
        self.assertEqual(ours, theirs)


if __name__ == "__main__":
    suite.run()
