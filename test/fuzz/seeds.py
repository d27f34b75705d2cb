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
HOP = record(b"\0", 41, b"\0\x0b\0\2\0\x64\0\x0a\0\x08abcdefgh\0\x0c\0\4\0\0\0\0", 1232)
SOA = record(b"\xc0\x10", 6, b"\x02ns\xc0\x10\x05admin\xc0\x10" + bytes(20))
CHAIN = header(an=20) + QUESTION + b"".join(
    record(struct.pack("!H", 0xC000 | (12 if i == 0 else 12 + len(QUESTION) + 13 * (i - 1))), 16, b"\0") for i in range(20))

ANSWERS = {
    "good": header(an=1) + QUESTION + A,
    "opt": header(an=1, ar=1) + QUESTION + A + OPT,
    "opt-hop": header(an=1, ar=1) + QUESTION + A + HOP,
    "opt-first": header(an=1, ar=3) + QUESTION + A + HOP + record(b"\x02ns\xc0\x0c", 1, b"\1\2\3\4")
    + record(struct.pack("!H", 0xC000 | 12 + len(QUESTION + A + HOP)), 15, b"\0\x0a" + struct.pack("!H", 0xC000 | 12 + len(QUESTION + A + HOP))),
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
    "edns-hop": header(flags=0x0100, ar=1) + QUESTION + HOP,
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
    "error-without-question": pieces(frame(header(flags=0x8182, qd=0)) + GOOD, 255),
    "bad-first": pieces(frame(ANSWERS["other-name"]) + GOOD, 255),
    "empty-frame": pieces(b"\0\0" + GOOD, 255),
    "behind-the-answer": pieces(GOOD + b"\xff\xff\1", 255),
    "long-frame": pieces(b"\xff\xff" + GOOD, 255),
    "nothing": b"",
}


def h2_frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def h2_header(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value  # HPACK literal, not indexed


DATA, HEADERS, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
H2_OK = h2_header(b":status", b"200") + h2_header(b"content-type", b"application/dns-message")
H2_SETTINGS = h2_frame(SETTINGS, 0, 0) + h2_frame(SETTINGS, 1, 0)


def response(stream, body=ANSWERS["good"], headers=H2_OK):
    return h2_frame(HEADERS, END_HEADERS, stream, headers) + h2_frame(DATA, END_STREAM, stream, body)


H2_STREAMS = {
    "three-answers": response(1) + response(5) + response(3),
    "age": response(1, headers=H2_OK + h2_header(b"age", b"4294967297")),
    "status": response(1, headers=h2_header(b":status", b"500")) + response(3, headers=h2_header(b":status", b"9" * 40)),
    "type": response(1, headers=h2_header(b":status", b"200") + h2_header(b"content-type", b"application/dns-messag")),
    "encoding": response(1, headers=H2_OK + h2_header(b"content-encoding", b"gzip")),
    "empty": h2_frame(HEADERS, END_HEADERS | END_STREAM, 1, H2_OK),
    "no-end": h2_frame(HEADERS, END_HEADERS, 1, H2_OK) + h2_frame(DATA, 0, 1, b"x" * 100),
    "long-body": h2_frame(HEADERS, END_HEADERS, 1, H2_OK) + 5 * h2_frame(DATA, 0, 1, bytes(16384)) + h2_frame(DATA, 1, 1),
    "early-hints": h2_frame(HEADERS, END_HEADERS, 1, h2_header(b":status", b"103")) + response(1),
    "trailers": h2_frame(HEADERS, END_HEADERS, 1, H2_OK) + h2_frame(DATA, 0, 1, b"abc") +
                h2_frame(HEADERS, END_HEADERS | END_STREAM, 1, h2_header(b"age", b"7")),
    "data-first": h2_frame(DATA, 0, 1, b"abc") + response(1),
    "no-such-stream": response(101),
    "even-stream": response(2),
    "twice": response(1) + response(1),
    "refused": h2_frame(RST, 0, 1, struct.pack("!I", 7)) + h2_frame(RST, 0, 3, struct.pack("!I", 2)) + response(5),
    "goaway": h2_frame(GOAWAY, 0, 0, struct.pack("!II", 1, 0)) + response(1),
    "goaway-error": h2_frame(GOAWAY, 0, 0, struct.pack("!II", 0, 11) + b"calm down"),
    "one-stream": h2_frame(SETTINGS, 0, 0, struct.pack("!HI", 3, 1)) + response(1),
    "no-stream": h2_frame(SETTINGS, 0, 0, struct.pack("!HI", 3, 0)),
    "settings-wrong": h2_frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 0xFFFFFFFF)),
    "window-overflow": h2_frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "window-zero": h2_frame(WINDOW, 0, 1, bytes(4)),
    "push": h2_frame(PUSH, END_HEADERS, 1, struct.pack("!I", 2) + H2_OK),
    "continuation": h2_frame(HEADERS, 0, 1, H2_OK[:9]) + h2_frame(CONTINUATION, END_HEADERS, 1, H2_OK[9:]) + h2_frame(DATA, 1, 1, b"abc"),
    "continuation-alone": h2_frame(CONTINUATION, END_HEADERS, 1, H2_OK),
    "padding": h2_frame(HEADERS, END_HEADERS, 1, H2_OK) + h2_frame(DATA, PADDED, 1, b"\xff" + b"abc"),
    "pings": h2_frame(PING, 0, 0, bytes(8)) * 50,
    "great-header": response(1, headers=H2_OK + b"".join(h2_header(b"x%d" % i, b"y" * 100) for i in range(200))),
    "hpack-wrong": h2_frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
    "great-frame": b"\xff\xff\xff\0\0\0\0\0\1",
    "http-1": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
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
    for choice in (0, 1, 6, 11):
        write("http", {f"{name}-{choice}": bytes([choice]) + H2_SETTINGS + data for name, data in H2_STREAMS.items()})


if __name__ == "__main__":
    main()
