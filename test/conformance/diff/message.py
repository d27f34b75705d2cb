"""DNS messages for the differential run of queries: building, and a form in which two messages can be compared."""

import struct

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, DS, ANY = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 43, 255
OWNER = b"\xc0\x0c"  # a pointer to the question's name

# Where names stand in RDATA: octets before the first one, number of names. Only of the types that upstreams here send.
NAMES_IN = {NS: (0, 1), CNAME: (0, 1), PTR: (0, 1), MX: (2, 1), SRV: (6, 1), SOA: (0, 2)}


class Malformed(Exception):
    """What does not parse, and where."""


def name_read(wire, at):
    """The name at an offset without compression, and the offset behind it."""
    out, end, jumps = b"", None, 0
    while True:
        if at >= len(wire):
            raise Malformed("name past the end")
        length = wire[at]
        if length & 0xC0 == 0xC0:
            if at + 1 >= len(wire):
                raise Malformed("pointer past the end")
            end = end or at + 2
            at, jumps = struct.unpack("!H", wire[at : at + 2])[0] & 0x3FFF, jumps + 1
            if jumps > 100:
                raise Malformed("pointer loop")
            continue
        if length & 0xC0:
            raise Malformed("label type")
        out += wire[at : at + 1 + length]
        at += 1 + length
        if length == 0:
            return out, end or at


def name_make(text):
    """Wire form of a dotted text of plain labels."""
    return b"".join(bytes([len(label)]) + label for label in text.encode().split(b".") if label) + b"\0"


def question_end(query):
    """The offset behind the first question."""
    return name_read(query, 12)[1] + 4


def record(owner, rtype, rdata, ttl=300, rclass=1):
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata)) + rdata


def option(code, data):
    return struct.pack("!HH", code, len(data)) + data


def opt(size=1232, ttl=0, options=b"", owner=b"\0"):
    return record(owner, OPT, options, ttl, size)


def message(ident, flags, question=b"", answer=(), authority=(), additional=(), counts=None):
    counts = counts or (int(bool(question)), len(answer), len(authority), len(additional))
    return struct.pack("!6H", ident, flags, *counts) + question + b"".join([*answer, *authority, *additional])


def rdata_plain(wire, rtype, at, end):
    """RDATA with its names written out."""
    if rtype not in NAMES_IN:
        return wire[at:end]
    skip, count = NAMES_IN[rtype]
    out = wire[at : at + skip]
    at += skip
    for _ in range(count):
        name, at = name_read(wire, at)
        out += name
    if at > end:
        raise Malformed("name past RDATA")
    return out + wire[at:end]


def record_read(wire, at):
    """(owner, type, class, TTL, RDATA), names written out, and the offset behind it."""
    owner, at = name_read(wire, at)
    if at + 10 > len(wire):
        raise Malformed("record past the end")
    rtype, rclass, ttl, length = struct.unpack("!HHIH", wire[at : at + 10])
    at += 10
    if at + length > len(wire):
        raise Malformed("RDATA past the end")
    return (owner, rtype, rclass, ttl, rdata_plain(wire, rtype, at, at + length)), at + length


def normal(wire):
    """A message as a dictionary of what counts: no ID, no compression. What does not parse is kept as octets."""
    if wire is None:
        return {"silence": True}
    if len(wire) < 12:
        return {"octets": wire.hex()}
    flags, *counts = struct.unpack("!5H", wire[2:12])
    out = {"flags": f"{flags & 0xFFF0:04x}", "rcode": flags & 15}
    try:
        at = 12
        out["question"] = []
        for _ in range(counts[0]):
            name, at = name_read(wire, at)
            out["question"].append((name + wire[at : at + 4]).hex())
            at += 4
        for section, count in zip(("answer", "authority", "additional"), counts[1:]):
            out[section] = []
            for _ in range(count):
                (owner, rtype, rclass, ttl, rdata), at = record_read(wire, at)
                if rtype == OPT and section == "additional":
                    out.setdefault("opt", []).append(f"size {rclass} ttl {ttl:08x} options {rdata.hex()}")
                else:
                    out[section].append(f"{owner.hex()} {rtype} {rclass} {ttl} {rdata.hex()}")
        out["rest"] = wire[at:].hex()
    except Malformed as error:
        out["malformed"] = f"{error}: {wire[2:].hex()}"
    return out
