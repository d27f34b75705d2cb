"""Scripted upstreams: what one does with a query stands in the query's name.

The first label is CODES-NUMBER; CODES has one code for each upstream, joined by `_`, the last one for all further ones. So
`sf_ok-17.example.` gets SERVFAIL from the first upstream and an answer from the second. Names without codes get an answer.

Everything that arrives is noted under (side, number): which upstream, how, and the message.
"""

import asyncio
import collections
import re
import socket
import struct

import message as dns
from message import OWNER

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
TOKEN = re.compile(rb"([a-z0-9_]+)-(\d+)$", re.I)


def token(wire):
    """(codes, number) of a query, or (["ok"], None)."""
    try:
        name, _ = dns.name_read(wire, 12)
    except dns.Malformed:
        return ["ok"], None
    match = TOKEN.match(name[1 : 1 + name[0]])
    return (match[1].decode().lower().split("_"), int(match[2])) if match else (["ok"], None)


class Query:
    """A query at an upstream, as the behaviours see it."""

    def __init__(self, wire, tcp, attempt):
        self.wire, self.tcp, self.attempt = wire, tcp, attempt
        self.id, self.flags = struct.unpack("!HH", wire[:4])
        self.end = dns.question_end(wire)
        self.question = wire[12 : self.end]
        self.type, self.qclass = struct.unpack("!HH", wire[self.end - 4 : self.end])
        self.opt = None
        normal = dns.normal(wire)
        if normal.get("opt"):
            self.opt = normal["opt"][0]

    def reply(self, rcode=0, answer=(), authority=(), additional=(), flags=RA, ident=None, question=None, opt=True, counts=None):
        """A reply; with an OPT of our own when the query has one."""
        if opt and self.opt:
            additional = [*additional, dns.opt(1232, 0x8000 if "ttl 00008" in self.opt else 0)]
        return dns.message(self.id if ident is None else ident, QR | flags | self.flags & (0x7800 | RD) | rcode,
                           self.question if question is None else question, answer, authority, additional, counts)

    def answers(self, count=1):
        """Records that fit the question."""
        rtype = 1 if self.type in (dns.ANY, 0) else self.type
        target = b"\x06target" + OWNER
        made = []
        for i in range(count):
            data = {
                1: bytes([192, 0, 2, i & 255]), 28: bytes(15) + bytes([i & 255]), 15: struct.pack("!H", 10 + i) + target, 16: b"\x05hello",
                33: struct.pack("!3H", 1, 2, 53) + b"\x06target\x04test\0", 2: target, 5: target, 12: target,
                6: target + OWNER + struct.pack("!5I", 1, 2, 3, 4, 5),
            }.get(rtype, b"\x00\x01\x02\x03" if rtype > 260 else None)
            made.append(dns.record(OWNER, rtype, data, 300 + i) if data else dns.record(OWNER, 1, bytes([192, 0, 2, 1])))
        return made


def soa(query):
    return dns.record(OWNER, dns.SOA, b"\2ns" + OWNER + b"\4root" + OWNER + struct.pack("!5I", 1, 7200, 900, 86400, 60), 60)


def texts(size):
    """TXT records of about so many octets."""
    return [dns.record(OWNER, dns.TXT, b"\x63" + bytes([65 + i % 26]) * 99) for i in range(size // 112)]


def first_bad(bad):
    """Sends what `bad(query)` makes, and the right answer 5 ms later."""
    return lambda q: [("send", bad(q), 0), ("send", q.reply(answer=q.answers()), 0.005)]


def on_udp_tc(q):
    return [("send", q.reply(flags=RA | TC) if not q.tcp else q.reply(answer=q.answers(40)), 0)]


def rcode(code, **kwargs):
    return lambda q: [("send", q.reply(code, **kwargs), 0)]


def extended(code):
    """An extended RCODE, in the OPT if there is one."""
    return lambda q: [("send", q.reply(code & 15, opt=False, additional=[dns.opt(1232, (code >> 4) << 24)] if q.opt else []), 0)]


def lone(make):
    return lambda q: [("send", make(q), 0)]


# By code: a function of the Query that gives actions ("send", message, delay), ("raw", octets, delay), ("close",), ("reset",).
BEHAVIOURS = {
    "ok": lone(lambda q: q.reply(answer=q.answers())),
    "many": lone(lambda q: q.reply(answer=q.answers(20))),
    "aa": lone(lambda q: q.reply(answer=q.answers(), flags=AA | AD | CD)),
    "zbit": lone(lambda q: q.reply(answer=q.answers(), flags=RA | 0x40)),
    "nd": lone(lambda q: q.reply(authority=[soa(q)])),
    "ndempty": lone(lambda q: q.reply()),
    "nx": lone(lambda q: q.reply(3, authority=[soa(q)])),
    "sf": rcode(2), "rf": rcode(5), "fe": rcode(1), "ni": rcode(4), "yx": rcode(6), "na": rcode(9), "r11": rcode(11), "r15": rcode(15),
    "fenq": lone(lambda q: q.reply(1, question=b"", opt=False)),
    "bv": extended(16), "bc": extended(23), "r100": extended(100),
    "ext": lone(lambda q: q.reply(answer=q.answers(), authority=[dns.record(OWNER, dns.NS, b"\2ns" + OWNER)],
                                  additional=[dns.record(b"\2ns" + OWNER, 1, b"\xc0\0\2\5")])),
    "cname": lone(lambda q: q.reply(answer=[dns.record(OWNER, dns.CNAME, b"\5alias\4test\0"), dns.record(b"\5alias\4test\0", 1, b"\xc0\0\2\7")])),
    "noopt": lone(lambda q: q.reply(answer=q.answers(), opt=False)),
    "popt": lone(lambda q: q.reply(answer=q.answers(), opt=False, additional=[dns.opt(4096, 0x8000, dns.option(15, b"\0\1why"))])),
    "optv1": lone(lambda q: q.reply(answer=q.answers(), opt=False, additional=[dns.opt(4096, 0x00010000)])),
    "optz": lone(lambda q: q.reply(answer=q.answers(), opt=False, additional=[dns.opt(800, 0x7FFF)])),
    "opt2": lone(lambda q: q.reply(answer=q.answers(), opt=False, additional=[dns.opt(800), dns.opt(900)])),
    "tc": on_udp_tc,
    "tcall": lone(lambda q: q.reply(flags=RA | TC, answer=q.answers())),
    "t400": lone(lambda q: q.reply(answer=texts(400))),
    "t900": lone(lambda q: q.reply(answer=texts(900))),
    "t3000": lone(lambda q: q.reply(answer=texts(3000))),
    "case": lone(lambda q: q.reply(answer=q.answers(), question=q.question[:-4].upper() + q.question[-4:])),
    "wrongq": lone(lambda q: q.reply(question=b"\5wrong\4test\0" + q.question[-4:])),
    "wrongt": lone(lambda q: q.reply(question=q.question[:-4] + struct.pack("!HH", q.type ^ 64, q.qclass))),
    "wrongc": lone(lambda q: q.reply(question=q.question[:-2] + b"\0\7")),
    "noq": lone(lambda q: q.reply(question=b"", opt=False)),
    "qr0": lone(lambda q: q.wire),
    "op5": lone(lambda q: q.reply(flags=RA | 5 << 11, answer=q.answers())),
    "wid": first_bad(lambda q: q.reply(3, ident=q.id ^ 1)),
    "short": first_bad(lambda q: q.wire[:7]),
    "junkid": first_bad(lambda q: struct.pack("!H", q.id ^ 1) + b"\x80" * 40),
    "junk": first_bad(lambda q: q.wire[:2] + b"\x84\0\0\1\0\1\0\0\0\0\xc0\x0c\xff\xff"),
    "badq": first_bad(lambda q: q.reply(question=b"\5wrong\4test\0" + q.question[-4:])),
    "cutrr": lone(lambda q: q.reply(answer=q.answers(), opt=False)[:-2]),
    "loop": lone(lambda q: q.reply(answer=[dns.record(b"\xc0" + bytes([q.end]), 1, b"\1\2\3\4")], opt=False)),
    "count": lone(lambda q: q.reply(answer=q.answers(), opt=False, counts=(1, 5, 0, 0))),
    "tail": lone(lambda q: q.reply(answer=q.answers(), opt=False) + b"tail"),
    "dup": lambda q: [("send", q.reply(answer=q.answers()), 0), ("send", q.reply(answer=q.answers()), 0)],
    "slow": lambda q: [("send", q.reply(answer=q.answers()), 0.08)],
    "late": lambda q: [("send", q.reply(answer=q.answers()), 0.6)],
    "mute": lambda q: [],
    "m1": lambda q: [] if q.attempt == 1 else [("send", q.reply(answer=q.answers()), 0)],
    "sf1": lambda q: [("send", q.reply(2), 0)] if q.attempt == 1 else [("send", q.reply(answer=q.answers()), 0)],
    "eof": lambda q: [("close",)],
    "rst": lambda q: [("reset",)],
    "half": lambda q: [("raw", b"\0\x40" + q.wire[:20], 0), ("close",)],
    "bytes": lambda q: [("raw", bytes([octet]), 0.001) for octet in framed(q.reply(answer=q.answers()))] if q.tcp
    else [("send", q.reply(answer=q.answers()), 0)],
    "after": lambda q: [("send", q.reply(answer=q.answers()), 0), ("close",)],
}


def framed(wire):
    return struct.pack("!H", len(wire)) + wire


class Upstream:
    """One upstream of one side, on UDP and TCP at one port."""

    def __init__(self, index, seen, host="127.0.0.1"):
        self.index, self.seen, self.host = index, seen, host
        self.attempts = collections.Counter()

    async def open(self):
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        for _ in range(50):
            self.tcp = await asyncio.start_server(self.serve_conn, self.host, 0, family=family, backlog=1000)
            self.port = self.tcp.sockets[0].getsockname()[1]
            try:
                self.udp, _ = await loop.create_datagram_endpoint(lambda: Datagrams(self), (self.host, self.port), family=family)
            except OSError:  # taken on UDP
                self.tcp.close()
                continue
            self.udp.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            return self
        raise OSError("no free port")

    @property
    def address(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def actions(self, wire, tcp, peer):
        """Notes a query and says what to do about it."""
        codes, number = token(wire)
        self.attempts[number] += 1
        self.seen[number].append((self.index, "tcp" if tcp else "udp", peer, dns.normal(wire)))
        try:
            query = Query(wire, tcp, self.attempts[number])
        except (dns.Malformed, struct.error):
            return []
        return BEHAVIOURS.get(codes[min(self.index, len(codes) - 1)], BEHAVIOURS["ok"])(query)

    async def serve_conn(self, reader, writer):
        try:
            while True:
                head = await reader.readexactly(2)
                wire = await reader.readexactly(struct.unpack("!H", head)[0])
                for action in self.actions(wire, True, writer.get_extra_info("peername")[0]):
                    if not await self.act(action, writer):
                        return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    async def act(self, action, writer):
        """One action on a connection; False when it is at its end."""
        if action[0] == "close":
            return False
        if action[0] == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if action[2]:
            await asyncio.sleep(action[2])
        writer.write(action[1] if action[0] == "raw" else framed(action[1]))
        return True

    def close(self):
        self.udp.close()
        self.tcp.close()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, upstream):
        self.upstream = upstream

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        delay = 0
        for action in self.upstream.actions(data, False, addr[0]):
            if action[0] != "send":
                continue
            delay += action[2]
            if delay:
                asyncio.get_running_loop().call_later(delay, self.transport.sendto, action[1], addr)
            else:
                self.transport.sendto(action[1], addr)
