"""Random client queries: Random(seed, configuration).query(index) is always the same for the same arguments."""

import random
import struct

import message as dns

TYPES = [1, 1, 1, 28, 28, 15, 16, 33, 2, 6, 5, 12, 43, 48, 64, 65, 257, 255, 65400, 99, 35, 39, 252, 251, 250, 0, 41]
CLASSES = [1] * 30 + [3, 4, 254, 255, 0, 1234]
OPTIONS = [dns.option(10, b"12345678"), dns.option(10, b"12345678" * 2), dns.option(3, b""), dns.option(8, b"\0\1\x18\0\xc0\0\2"), dns.option(11, b""),
           dns.option(12, bytes(20)), dns.option(65001, b"local"), dns.option(15, b"\0\1"), dns.option(9, b""), dns.option(5, b"\1\2"),
           dns.option(14, b"\0\1"), dns.option(13, b"")]
BROKEN_OPTIONS = [dns.option(8, b"\0"), dns.option(10, b"1"), b"\0\x0a\0\x40short", b"\0", dns.option(8, b"\0\x09\x18\0\xc0\0\2"), dns.option(9, b"\1")]
SIZES = [0, 100, 511, 512, 513, 1220, 1232, 1232, 1232, 1400, 1480, 4096, 4096, 8192, 65535]


class Query:
    """A client's query: its octets, how it is sent, and what kind it is."""

    def __init__(self, wire, tcp, kind, codes):
        self.wire, self.tcp, self.kind, self.codes = wire, tcp, kind, codes
        self.silent = len(wire) < 12 or wire[2] & 0x80  # not worth a long wait


class Random:
    def __init__(self, seed, configuration):
        self.seed, self.configuration = seed, configuration

    def query(self, index, number):
        """The index-th query; number is what its name carries."""
        rng = random.Random(f"{self.seed}/{self.configuration.name}/{index}")
        pool = self.configuration.codes
        codes = [rng.choice(pool) for _ in range(rng.randint(1, self.configuration.upstreams))] if pool else ["ok"]
        zone = rng.choice(self.configuration.zones)
        weights = [30, 10, 30, 4, 4, 6, 10, 6]
        if self.configuration.mode != "many":  # what one side refuses would shift its upstreams against the other's
            weights = [60, 10, 0, 0, 10, 20, 0, 0]
        kind = rng.choices(["plain", "flags", "edns", "opcode", "class", "name", "header", "body"], weights)[0]
        name = self.name(rng, kind, f"{'_'.join(codes)}-{number}", zone)
        qtype = rng.choice(TYPES)
        qclass = rng.choice(CLASSES) if kind == "class" else 1
        flags = {"flags": rng.choice([0, 0x0100, 0x0120, 0x0110, 0x0130, 0x0140, 0x0400, 0x0200, 0x0080, 0x07F0, 0x0300])}.get(kind, 0x0100)
        if kind == "opcode":
            flags |= rng.choice([4, 4, 4, 1, 2, 3, 5, 6, 15]) << 11
        additional = self.edns(rng) if kind == "edns" or (kind != "plain" and rng.random() < 0.3) else []
        if self.configuration.mode != "many":
            additional = []
        question = name + struct.pack("!HH", qtype, qclass)
        wire = dns.message(rng.randrange(65536), flags, question, additional=additional)
        if kind == "header":
            wire = self.header(rng, wire, question, additional)
        elif kind == "body":
            wire = self.body(rng, wire)
        return Query(wire, rng.random() < self.configuration.tcp, kind, codes)

    def name(self, rng, kind, label, zone):
        label = label.encode()
        if kind == "name":
            way = rng.randrange(6)
            if way == 0:
                label = bytes(c ^ 32 if chr(c).isalpha() and rng.random() < 0.5 else c for c in label)
            elif way == 1:
                return dns.name_make(label.decode()) [:-1] + rng.choice([b"\3a.b", b"\4\0\xff\x80\n", b"\2\\\"", b"\1 ", b"\4(;)@"]) + dns.name_make(zone)
            elif way == 2:
                room = 246 - len(label) - len(dns.name_make(zone))  # answers have names below it
                filler = b""
                while room >= 2:
                    step = min(63, room - 1)
                    filler += bytes([step]) + b"l" * step
                    room -= step + 1
                return bytes([len(label)]) + label + filler + dns.name_make(zone)
            elif way == 3:
                return dns.name_make(label.decode())[:-1] + b"\x01a" * rng.randint(1, 40) + dns.name_make(zone)
            elif way == 4:
                return dns.name_make(label.decode())[:-1] + bytes([63]) + b"q" * 63 + dns.name_make(zone)
            else:
                zone = zone.upper()
        return bytes([len(label)]) + label + dns.name_make(zone)

    def edns(self, rng):
        options = b"".join(rng.choice(OPTIONS) for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 4])))
        if rng.random() < 0.05:
            options += rng.choice(BROKEN_OPTIONS)
        ttl = rng.choice([0, 0, 0x8000, 0x8000, 0x8000, 0x4000, 0x0001, 0xFFFF, 0x00010000, 0x00FF8000, 0x01000000])
        made = [dns.opt(rng.choice(SIZES), ttl, options, rng.choice([b"\0"] * 30 + [b"\1a\0"]))]
        if rng.random() < 0.03:
            made.append(dns.opt(800))
        return made

    def header(self, rng, wire, question, additional):
        """Odd counts and what hangs on behind."""
        ident, flags = struct.unpack("!HH", wire[:4])
        extra = dns.record(b"\1x\0", 1, b"\1\2\3\4")
        return rng.choice([
            lambda: dns.message(ident, flags, b"", additional=additional),
            lambda: dns.message(ident, flags, question + question, additional=additional, counts=(2, 0, 0, len(additional))),
            lambda: dns.message(ident, flags, question, answer=[extra], additional=additional),
            lambda: dns.message(ident, flags, question, answer=[extra] * 2),
            lambda: dns.message(ident, flags, question, authority=[extra], additional=additional),
            lambda: dns.message(ident, flags, question, authority=[extra] * 2),
            lambda: dns.message(ident, flags, question, additional=[extra] * 2),
            lambda: dns.message(ident, flags, question, additional=[extra] * 3),
            lambda: dns.message(ident, flags, question, additional=[extra, *additional]),
            lambda: dns.message(ident, flags, question, counts=(1, 1, 0, 0)),
            lambda: dns.message(ident, flags, question, counts=(1, 0, 1, 0)),
            lambda: dns.message(ident, flags, question, counts=(1, 0, 0, 1)),
            lambda: dns.message(ident, flags, question, counts=(1, 0, 0, 2)),
            lambda: dns.message(ident, flags | 0x8000, question),
            lambda: wire[: rng.randrange(12)],
            lambda: wire[:12],
            lambda: wire + b"tail",
        ])()

    def body(self, rng, wire):
        """Octets cut, flipped or looped behind the header."""
        way = rng.randrange(4)
        if way == 0:
            return wire[: rng.randrange(12, len(wire))]
        if way == 1:
            return wire[:12] + b"\xc0\x0c" + wire[-4:]
        if way == 2:
            return wire[:12] + bytes([rng.choice([0x40, 0x80, 0xBF])]) + wire[13:]
        at = rng.randrange(13 + wire[12], len(wire))  # the first label says what upstreams do
        return wire[:at] + bytes([rng.randrange(256)]) + wire[at + 1 :]
