#!/usr/bin/env python3
"""Writes the seeds of the wire corpora: one file per kind of message that the tests know, and some that only a fuzzer would send."""

import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
NAME = b"\x03www\x07example\x03org\x00"
QUESTION = NAME + b"\x00\x01\x00\x01"


def header(ident=0x1234, flags=0x8180, qd=1, an=0, ns=0, ar=0):
    return struct.pack("!6H", ident, flags, qd, an, ns, ar)


def record(owner, kind, rdata, klass=1, length=None):
    return owner + struct.pack("!HHIH", kind, klass, 60, len(rdata) if length is None else length) + rdata


A = record(b"\xc0\x0c", 1, b"\x7f\0\0\1")
OPT = record(b"\0", 41, b"\0\x0a\0\x08abcdefgh", 1232)
SOA = record(b"\xc0\x10", 6, b"\x02ns\xc0\x10\x05admin\xc0\x10" + bytes(20))
CHAIN = header(an=20) + QUESTION + b"".join(
    record(struct.pack("!H", 0xC000 | (12 if i == 0 else 12 + len(QUESTION) + 13 * (i - 1))), 16, b"\0") for i in range(20))

ANSWERS = {
    "good": header(an=1) + QUESTION + A,
    "opt": header(an=1, ar=1) + QUESTION + A + OPT,
    "two-opts": header(ar=2) + QUESTION + OPT + OPT,
    "opt-overrun": header(ar=1) + QUESTION + record(b"\0", 41, b"\0\x0a\0\x80ab", 1232),
    "soa": header(flags=0x8183, ns=1) + QUESTION + SOA,
    "cname": header(an=2) + QUESTION + record(b"\xc0\x0c", 5, b"\x01a\xc0\x10") + record(b"\x01a\xc0\x10", 1, b"\1\2\3\4"),
    "srv": header(an=1) + QUESTION + record(b"\xc0\x0c", 33, b"\0\0\0\0\0\x35\x02ns\xc0\x10"),
    "mx": header(an=1) + QUESTION + record(b"\xc0\x0c", 15, b"\0\x0a\x04mail\xc0\x10"),
    "unknown-type": header(an=1) + QUESTION + record(b"\xc0\x0c", 65280, b"\xff" * 30),
    "tc": header(flags=0x8380) + QUESTION,
    "tc-cut": header(flags=0x8380, an=9) + QUESTION + A[:7],
    "case": header(an=1) + QUESTION.replace(b"www", b"wWW") + A,
    "qr-0": header(flags=0x0100) + QUESTION,
    "opcode": header(flags=0x9180) + QUESTION,
    "no-question": header(qd=0),
    "two-questions": header(qd=2) + QUESTION + QUESTION,
    "other-name": header(an=1) + QUESTION.replace(b"www", b"xxx") + A,
    "pointer-loop": header(an=1) + QUESTION + record(struct.pack("!H", 0xC000 | (12 + len(QUESTION))), 1, b"\1\2\3\4"),
    "pointer-forward": header(an=1) + QUESTION + record(b"\xc0\xff", 1, b"\1\2\3\4"),
    "pointer-chain": CHAIN,
    "label-01": header(an=1) + QUESTION + record(b"\x41a\0", 1, b"\1\2\3\4"),
    "label-10": header(an=1) + QUESTION + record(b"\x81a\0", 1, b"\1\2\3\4"),
    "long-name": header(an=1) + QUESTION + record(b"\x3f" + b"a" * 63 + b"\x3f" + b"b" * 63 + b"\x3f" + b"c" * 63 + b"\x3e" + b"d" * 62 + b"\0", 1, b"\1\2\3\4"),
    "rdlength": header(an=1) + QUESTION + record(b"\xc0\x0c", 1, b"\1\2\3\4", length=400),
    "counts": header(an=0xFFFF, ns=0xFFFF, ar=0xFFFF) + QUESTION,
    "short": header()[:11],
    "empty": b"",
}

QUERIES = {
    "plain": header(flags=0x0100) + QUESTION,
    "root": header(flags=0x0100) + b"\0\0\2\0\1",
    "edns": header(flags=0x0100, ar=1) + QUESTION + OPT,
    "tsig": header(flags=0x0100, ar=1) + QUESTION + record(b"\x03key\0", 250, b"\x08hmac-md5\0" + bytes(16), 255),
    "notify": header(flags=0x2000, an=1) + QUESTION + SOA,
    "update": header(flags=0x2800, an=1) + QUESTION + record(b"\xc0\x0c", 1, b"", 254),
    "answer": header(an=1) + QUESTION + A,
    "pointer": header(flags=0x0100) + b"\xc0\x0c\0\1\0\1",
    "label-64": header(flags=0x0100) + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
    "cut": (header(flags=0x0100) + QUESTION)[:-2],
    "counts": header(flags=0x0100, ar=9) + QUESTION,
}


def frame(message):
    return struct.pack("!H", len(message)) + b"\xf0\x1d" + message[2:]


def pieces(data, size):
    return b"".join(bytes([len(data[i:i + size])]) + data[i:i + size] for i in range(0, len(data), size))


GOOD = frame(ANSWERS["good"])
WRONG_ID = struct.pack("!H", len(ANSWERS["good"])) + ANSWERS["good"]
STREAMS = {
    "whole": pieces(GOOD, 255),
    "octets": pieces(GOOD, 1),
    "threes": pieces(GOOD, 3),
    "twice": pieces(GOOD + GOOD, 255),
    "half": pieces(GOOD[:20], 7),
    "wrong-id-first": pieces(WRONG_ID + WRONG_ID + GOOD, 50),
    "bad-first": pieces(frame(ANSWERS["other-name"]) + GOOD, 255),
    "empty-frame": pieces(b"\0\0" + GOOD, 255),
    "behind-the-answer": pieces(GOOD + b"\xff\xff\1", 255),
    "long-frame": pieces(b"\xff\xff" + GOOD, 255),
    "nothing": b"",
}


def write(kind, seeds):
    for name, data in seeds.items():
        with open(os.path.join(HERE, kind, name), "wb") as out:
            out.write(data)


def main():
    query = QUERIES["plain"]
    write("query", QUERIES)
    write("answer", {name: b"\0" + data for name, data in ANSWERS.items()})
    write("answer", {"other-query-" + name: bytes([len(data)]) + data + data[:2] + b"\x81\x80" + data[4:]
                     for name, data in QUERIES.items() if len(data) < 256})
    write("answer", {"own-query": bytes([len(query)]) + query + ANSWERS["opt"]})
    write("stream", STREAMS)


if __name__ == "__main__":
    main()
