"""A name server for the host names in TO: a few names under up.test., everything else does not exist."""

import socket
import struct
import threading

ADDRESSES = {
    (b"a", 1): ["192.0.2.101"],
    (b"a", 28): ["2001:db8::101"],
    (b"b", 1): ["192.0.2.102"],
    (b"two", 1): ["192.0.2.103", "192.0.2.104"],
    (b"v6", 28): ["2001:db8::105"],
    (b"a_b", 1): ["192.0.2.106"],
    (b"xn--a", 1): ["192.0.2.107"],
}
KNOWN = {name for name, _ in ADDRESSES} | {b"empty", b"cname"}


def reply(query):
    """The answer to one datagram."""
    end = query.index(b"\0", 12) + 5
    qtype = struct.unpack("!H", query[end - 4 : end - 2])[0]
    label = query[13 : 13 + query[12]].lower()
    known = label in KNOWN and query[13 + query[12] : end - 4].lower() == b"\2up\4test\0"
    answers = []
    for address in ADDRESSES.get((label, qtype), []) if known else []:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        data = socket.inet_pton(family, address)
        answers.append(struct.pack("!HHHIH", 0xC00C, qtype, 1, 60, len(data)) + data)
    if known and label == b"cname":
        answers.append(struct.pack("!HHHIH", 0xC00C, 5, 1, 60, 4) + b"\1a\xc0\x12")
    rcode = 0 if known else 3
    return query[:2] + struct.pack("!HHHHH", 0x8180 | rcode, 1, len(answers), 0, 0) + query[12:end] + b"".join(answers)


class NameServer:
    """Serves on a UDP port of the kernel's choice while its block runs."""

    def __enter__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.ended = False
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return self

    def serve(self):
        while True:
            query, peer = self.socket.recvfrom(65535)
            if self.ended:
                return
            try:
                self.socket.sendto(reply(query), peer)
            except (ValueError, struct.error, IndexError):
                pass  # no query of a resolver

    def __exit__(self, *_):
        self.ended = True
        self.socket.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join()
        self.socket.close()
