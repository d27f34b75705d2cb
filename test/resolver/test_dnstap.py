"""dnstap: the stream as readers that share no code with the daemon see it (cases 51 and 82)."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import suite
import wire
from daemon import PATIENCE, answer_a, read_exactly, validate
from wire import Message

ACCEPT, START, STOP, READY, FINISH = 1, 2, 3, 4, 5
CONTENT = b"protobuf:dnstap.Dnstap"
CLIENT_QUERY, CLIENT_RESPONSE, FORWARDER_QUERY, FORWARDER_RESPONSE = 5, 6, 7, 8
FIELDS = ("type family protocol query_address response_address query_port response_port query_sec query_nsec query zone"
          " response_sec response_nsec response").split()


def fields(data):
    """{number: value} of a protobuf message; values as numbers or octets."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            octet = data[at]
            at += 1
            value |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        elif kind == 5:
            value = struct.unpack_from("<I", data, at)[0]
            at += 4
        elif kind == 2:
            length = varint()
            value = data[at : at + length]
            at += length
            assert len(value) == length
        else:
            raise ValueError(f"wire type {kind}")
        found[key >> 3] = value
    return found


class Frame:
    """One dnstap frame, by the names of the schema."""

    def __init__(self, data):
        outer = fields(data)
        self.identity, self.version, self.extra = (outer.get(i) for i in (1, 2, 3))
        assert outer[15] == 1
        inner = fields(outer[14])
        for number, name in enumerate(FIELDS, 1):
            setattr(self, name, inner.get(number))


class Collector:
    """A dnstap reader: frame streams over a Unix or TCP socket, with the handshake of both ways."""

    def __init__(self, server, reads=True):
        self.server = server
        self.reads = reads
        self.frames = []
        self.connections = 0
        self.finished = 0
        self.changed = threading.Condition()
        self.conns = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                conn, _ = self.server.accept()
            except OSError:
                return
            self.conns.append(conn)
            with self.changed:
                self.connections += 1
                self.changed.notify_all()
            threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def control(self, conn, kind):
        content = b"" if kind == FINISH else struct.pack("!II", 1, len(CONTENT)) + CONTENT
        conn.sendall(struct.pack("!III", 0, 4 + len(content), kind) + content)

    def serve(self, conn):
        try:
            while (head := read_exactly(conn, 4)) is not None:
                length = struct.unpack("!I", head)[0]
                if length:
                    with self.changed:
                        self.frames.append(Frame(read_exactly(conn, length)))
                        self.changed.notify_all()
                    continue
                length = struct.unpack("!I", read_exactly(conn, 4))[0]
                body = read_exactly(conn, length)
                kind = struct.unpack("!I", body[:4])[0]
                if kind == READY:
                    assert CONTENT in body
                    self.control(conn, ACCEPT)
                    if not self.reads:
                        return
                elif kind == STOP:
                    self.control(conn, FINISH)
                    with self.changed:
                        self.finished += 1
                        self.changed.notify_all()
        except OSError:
            pass

    def wait(self, what):
        with self.changed:
            return self.changed.wait_for(lambda: what(self), PATIENCE)

    def close(self):
        for sock in (self.server, *self.conns):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()


@suite.needs("dnstap")
class Dnstap(suite.Case):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "tap.sock")

    def collector(self, tcp=False, **kwargs):
        if tcp:
            server = socket.create_server(("127.0.0.1", 0))
        else:
            server = socket.socket(socket.AF_UNIX)
            server.bind(self.path)
            server.listen()
        collector = Collector(server, **kwargs)
        self.addCleanup(collector.close)
        return collector

    def tapped(self, directive, upstream=None, **kwargs):
        return self.forwarder(upstream or self.upstream(), directive, **kwargs)

    def by_type(self, collector):
        return {frame.type: frame for frame in collector.frames}

    def test_case_51_case_82_all_four_messages(self):
        collector, upstream = self.collector(), self.upstream()
        server = self.tapped(f"dnstap unix://{self.path} full", upstream)
        message = wire.query("a.test", ident=0x4242)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", server.port))
            client.send(message)
            reply = client.recv(512)
            port = client.getsockname()[1]
        self.assertTrue(collector.wait(lambda c: len(c.frames) == 4))
        frames = self.by_type(collector)
        query, response = frames[CLIENT_QUERY], frames[CLIENT_RESPONSE]
        self.assertEqual((query.query, query.response, response.query, response.response), (message, None, None, reply))
        for frame in (query, response):
            self.assertEqual((frame.query_address, frame.query_port), (b"\x7f\0\0\1", port))
            self.assertEqual((frame.family, frame.protocol, frame.response_address), (1, 1, None))
            self.assertAlmostEqual(frame.query_sec, time.time(), delta=60)
        self.assertGreaterEqual((response.response_sec, response.response_nsec), (response.query_sec, response.query_nsec))
        query, response = frames[FORWARDER_QUERY], frames[FORWARDER_RESPONSE]
        self.assertEqual(Message(query.query).id, 0x4242)  # the client's, as CoreDNS puts it back before it taps
        self.assertEqual(response.response, reply)
        peer = next(iter(upstream.peers))[1]
        for frame in (query, response):
            self.assertEqual((frame.response_address, frame.response_port), (b"\x7f\0\0\1", upstream.port))
            self.assertEqual((frame.query_address, frame.query_port), (b"\x7f\0\0\1", peer[1]))
            self.assertEqual((frame.family, frame.protocol), (1, 1))
        self.assertEqual(query.identity.decode(), socket.gethostname())
        self.assertTrue(query.version.startswith(b"fwd-resolver-"))
        self.assertIsNone(query.extra)
        self.assertEqual(server.stop(), 0)
        self.assertTrue(collector.wait(lambda c: c.finished == 1))

    def test_tcp_without_messages_with_names(self):
        collector = self.collector(tcp=True)
        port = collector.server.getsockname()[1]
        upstream = self.upstream()
        server = self.tapped(
            f'metadata\n dnstap tcp://127.0.0.1:{port} {{\n identity me\n version "1 2"\n extra "{{name}} {{/forward/upstream}} {{rcode}}"\n }}',
            upstream,
        )
        server.tcp(wire.query("a.test"))
        self.assertTrue(collector.wait(lambda c: len(c.frames) == 4))
        frames = self.by_type(collector)
        for frame in frames.values():
            self.assertEqual((frame.identity, frame.version, frame.query, frame.response, frame.protocol), (b"me", b"1 2", None, None, 2))
        self.assertEqual(frames[CLIENT_QUERY].extra, b"a.test. - -")
        self.assertEqual(frames[CLIENT_RESPONSE].extra, f"a.test. {upstream.address} -".encode())
        self.assertEqual(frames[FORWARDER_QUERY].extra, f"a.test. {upstream.address} -".encode())

    def test_failure(self):
        """A query that was not answered is tapped without a response; what the client is sent instead is."""
        collector = self.collector()
        server = self.tapped(f"dnstap {self.path} full", self.upstream(lambda query: None), options="read_timeout 20ms\n max_connect_attempts 1")
        reply = server.udp(wire.query("a.test"))
        self.assertEqual(server.stop(), 0)
        self.assertTrue(collector.wait(lambda c: c.finished == 1))
        self.assertEqual(sorted(f.type for f in collector.frames), [CLIENT_QUERY, CLIENT_RESPONSE, FORWARDER_QUERY])
        self.assertEqual(self.by_type(collector)[CLIENT_RESPONSE].response, reply)

    def test_two_lines(self):
        unix, tcp = self.collector(), self.collector(tcp=True)
        server = self.tapped(f"dnstap {self.path} full\n dnstap tcp://127.0.0.1:{tcp.server.getsockname()[1]}")
        server.udp(wire.query("a.test"))
        for collector in (unix, tcp):
            self.assertTrue(collector.wait(lambda c: len(c.frames) == 4))
        self.assertIsNotNone(self.by_type(unix)[CLIENT_QUERY].query)
        self.assertIsNone(self.by_type(tcp)[CLIENT_QUERY].query)

    def test_every_query_of_many(self):
        collector = self.collector()
        server = self.tapped(f"dnstap {self.path} full")
        names = [f"n{i}.test" for i in range(300)]
        for qname in names:
            server.udp(wire.query(qname))
        self.assertEqual(server.stop(), 0)
        self.assertTrue(collector.wait(lambda c: c.finished == 1))
        seen = sorted(f.query for f in collector.frames if f.type == CLIENT_QUERY)
        self.assertEqual(seen, sorted(wire.query(qname) for qname in names))
        self.assertEqual(len(collector.frames), 1200)

    def test_no_collector(self):
        server = self.tapped(f"dnstap {self.path}")
        server.wait_line(r"^\[ERROR\] plugin/dnstap: No connection to dnstap endpoint: dial unix .*: No such file or directory$")
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def test_collector_that_does_not_read(self):
        """The queue fills and drops; queries do not wait, and neither does the end of the daemon for long."""
        collector = self.collector(reads=False)
        server = self.tapped(f'dnstap {self.path} full {{\n extra "{"x" * 60000}"\n }}')
        self.assertTrue(collector.wait(lambda c: c.connections == 1))
        for i in range(50):
            self.assertEqual(Message(server.udp(wire.query(f"q{i}.test"))).rcode, wire.NOERROR)
        began = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - began, 5)

    def test_collector_that_goes_away(self):
        collector = self.collector()
        server = self.tapped(f"dnstap {self.path}")
        server.udp(wire.query("a.test"))
        self.assertTrue(collector.wait(lambda c: len(c.frames) == 4))
        collector.conns[0].close()
        deadline = time.monotonic() + PATIENCE
        while collector.connections < 2 and time.monotonic() < deadline:
            server.udp(wire.query("b.test"))
        self.assertEqual(collector.connections, 2)
        count = len(collector.frames)
        server.udp(wire.query("c.test"))
        self.assertTrue(collector.wait(lambda c: len(c.frames) > count))

    def test_reload(self):
        collector = self.collector()
        server = self.tapped(f"dnstap {self.path}")
        server.udp(wire.query("a.test"))
        self.assertTrue(collector.wait(lambda c: len(c.frames) == 4))
        server.signal(signal.SIGUSR1)
        server.wait_line("Reloading complete")
        server.udp(wire.query("b.test"))
        self.assertTrue(collector.wait(lambda c: c.connections == 2 and c.finished == 1 and len(c.frames) == 8))

    def test_debian_readers(self):
        """fstrm_capture takes the stream, dnstap-ldns decodes it."""
        missing = [name for name in ("fstrm_capture", "dnstap-ldns") if shutil.which(name) is None]
        if missing:
            raise unittest.SkipTest(f"{', '.join(missing)} (Debian: fstrm-bin, dnstap-ldns) not installed: NOT checked by them")
        out = self.path + ".out"
        capture = subprocess.Popen(["fstrm_capture", "-t", CONTENT.decode(), "-u", self.path, "-w", out],
                                   stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + PATIENCE
            while not os.path.exists(self.path) and time.monotonic() < deadline:
                time.sleep(0.01)
            server = self.tapped(f"dnstap {self.path} full")
            server.udp(wire.query("a.test"))
            self.assertEqual(server.stop(), 0)
        finally:
            capture.send_signal(signal.SIGTERM)
            capture.wait(PATIENCE)
        text = subprocess.run(["dnstap-ldns", "-r", out], capture_output=True, text=True, check=True).stdout
        self.assertEqual(sorted(line.split()[2] for line in text.splitlines()), ["CQ", "CR", "FQ", "FR"])
        self.assertEqual(text.count("a.test. IN A") + text.count('"a.test." IN A'), 4, text)

    def test_refused(self):
        at = "plugin/dnstap: /dev/stdin:{} - Error during parsing: "
        count = "Wrong argument count or unexpected line ending after '{}'"
        for directive, error in {
            "dnstap": at.format(2) + count.format("dnstap"),
            "dnstap /s full 0": at.format(2) + "dnstap: MultipleTcpWriteBuf must be between 1 and 1024 (MiB units): 0",
            "dnstap /s full 1 4097": at.format(2) + "dnstap: MultipleQueue must be between 1 and 4096 (x10k messages): 4097",
            "dnstap /s full x": at.format(2) + 'dnstap: invalid MultipleTcpWriteBuf "x": strconv.Atoi: parsing "x": invalid syntax',
            "dnstap /s {\n identity\n }": at.format(3) + count.format("identity"),
            "dnstap /s {\n nope\n }": at.format(3) + "unknown property 'nope'",
            "dnstap /s {\n tls a b\n }": at.format(3) + "tls directive only valid for listeners",
            "dnstap listen /s": at.format(2) + "'listen' is an option of CoreDNS's dnstap that fwd-resolver does not have",
            "dnstap tls://a:1": at.format(2) + "'tls://' is an option of CoreDNS's dnstap that fwd-resolver does not have",
        }.items():
            result = validate(f". {{\n {directive}\n forward . 127.0.0.1\n}}\n")
            self.assertEqual((result.returncode, result.stderr), (1, error + "\n"), directive)
        for directive in ("dnstap /s full 2 3 {\n skipverify\n }", "dnstap tcp://h:1", "dnstap unix:///s"):
            self.assertEqual(validate(f". {{\n {directive}\n forward . 127.0.0.1\n}}\n").returncode, 0, directive)


if __name__ == "__main__":
    suite.run()
