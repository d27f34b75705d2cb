"""DNS messages as octets: as much as the tests of the daemon need, and no library that could mend what a test breaks."""

import struct

A, NS, SOA, TXT, AAAA, OPT, DS = 1, 2, 6, 16, 28, 41, 43
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
DO = 0x8000


def name(text):
    out = b""
    for label in text.rstrip(".").split("."):
        if label:
            out += bytes([len(label)]) + label.encode()
    return out + b"\0"


def question(qname, qtype=A, qclass=1):
    return name(qname) + struct.pack("!HH", qtype, qclass)


def record(owner, rtype, rdata, ttl=60, rclass=1):
    owner = owner if isinstance(owner, bytes) else name(owner)
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata)) + rdata


def option(code, data):
    return struct.pack("!HH", code, len(data)) + data


def opt(size=1232, flags=0, version=0, rcode=0, options=b""):
    return record(b"\0", OPT, options, ttl=rcode << 24 | version << 16 | flags, rclass=size)


def message(ident=0x1234, flags=RD, questions=(), answers=(), authority=(), additional=(), counts=None):
    counts = counts or (len(questions), len(answers), len(authority), len(additional))
    sections = b"".join([*questions, *answers, *authority, *additional])
    return struct.pack("!HH4H", ident, flags, *counts) + sections


def query(qname, qtype=A, qclass=1, ident=0x1234, flags=RD, additional=(), **kwargs):
    return message(ident, flags, [question(qname, qtype, qclass)], additional=additional, **kwargs)


def skip_name(wire, at):
    while True:
        length = wire[at]
        if length == 0:
            return at + 1
        if length & 0xC0:
            return at + 2
        at += 1 + length


class Message:
    """A parsed message; a wrong length anywhere raises."""

    def __init__(self, wire):
        self.wire = wire
        self.id, self.flags, *self.counts = struct.unpack("!HH4H", wire[:12])
        self.rcode = self.flags & 15
        self.opcode = self.flags >> 11 & 15
        at = 12
        self.questions = []
        for _ in range(self.counts[0]):
            end = skip_name(wire, at) + 4
            self.questions.append(wire[at:end])
            at = end
        self.sections = []
        self.opt = None
        for count in self.counts[1:]:
            records = []
            for _ in range(count):
                start = at
                at = skip_name(wire, at)
                rtype, rclass, ttl, length = struct.unpack("!HHIH", wire[at : at + 10])
                at += 10 + length
                if at > len(wire):
                    raise ValueError("record past the end")
                rdata = wire[at - length : at]
                records.append((rtype, rclass, ttl, rdata, wire[start:at]))
                if rtype == OPT:
                    self.opt = {"size": rclass, "ttl": ttl, "options": rdata}
            self.sections.append(records)
        if at != len(wire):
            raise ValueError("octets behind the last record")
