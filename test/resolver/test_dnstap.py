"""dnstap: the stream as readers that share no code with the daemon see it (cases 51 and 82)."""

import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import certificates
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



def knows_localhost():
    """A base system may have no hosts file."""
    try:
        return socket.gethostbyname("localhost") == "127.0.0.1"
    except OSError:
        return False


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
    """A dnstap reader: frame streams over a Unix or TCP socket, with the handshake of both ways. `server` listens; without it the reader goes
    to the daemon itself (connect). `tls` is a context."""

    def __init__(self, server=None, reads=True, tls=None):
        self.server = server
        self.reads = reads
        self.tls = tls
        self.frames = []
        self.connections = 0
        self.started = self.finished = 0
        self.changed = threading.Condition()
        self.conns = []
        if server is not None:
            threading.Thread(target=self.accept, daemon=True).start()

    def connect(self, conn):
        """Reads from a listener."""
        self.conns.append(conn)
        threading.Thread(target=self.serve, args=(conn,), daemon=True).start()

    def accept(self):
        while True:
            try:
                conn, _ = self.server.accept()
            except OSError:
                return
            if self.tls is not None:
                try:
                    conn = self.tls.wrap_socket(conn, server_side=True)
                except OSError:
                    continue
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
                elif kind == START:
                    with self.changed:
                        self.started += 1
                        self.changed.notify_all()
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
        for sock in filter(None, (self.server, *self.conns)):
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

    def listening(self, directive, **kwargs):
        """A daemon that readers go to, and its port."""
        server = self.tapped(directive, **kwargs)
        line = server.wait_line(r"^\[INFO\] plugin/dnstap: listening on ")
        return server, int(line.rsplit(":", 1)[1])

    def reader(self, conn, **kwargs):
        collector = Collector(**kwargs)
        self.addCleanup(collector.close)
        collector.connect(conn)
        return collector

    def unix_reader(self):
        conn = socket.socket(socket.AF_UNIX)
        conn.connect(self.path)
        return self.reader(conn)

    def ask_until(self, server, collector, count=1):
        """A reader gets what comes after the daemon has taken it."""
        for i in range(200):
            server.udp(wire.query(f"u{i}.test"))
            if len(collector.frames) >= count:
                return
            time.sleep(0.01)
        self.fail("nothing was tapped")

    def test_listen_unix(self):
        """Two readers get the same; one that leaves does not matter to the other; the socket's file goes with the daemon."""
        server = self.tapped(f"dnstap listen unix://{self.path} full")
        self.assertEqual(Message(server.udp(wire.query("nobody.test"))).rcode, wire.NOERROR)
        one, two = self.unix_reader(), self.unix_reader()
        for reader in (one, two):
            self.assertTrue(reader.wait(lambda c: c.started == 1))
            self.ask_until(server, reader)
        server.udp(wire.query("both.test"))
        for reader in (one, two):
            self.assertTrue(reader.wait(lambda c: sum(b"both" in (f.query or b"") for f in c.frames) == 2))
        one.conns[0].close()
        for i in range(10):
            server.udp(wire.query(f"left{i}.test"))
        self.assertTrue(two.wait(lambda c: sum(b"left" in (f.query or b"") for f in c.frames) == 20))
        self.assertEqual(server.stop(), 0)
        self.assertTrue(two.wait(lambda c: c.finished == 1))
        self.assertFalse(os.path.exists(self.path))

    def test_listen_tcp(self):
        server, port = self.listening("dnstap listen tcp://127.0.0.1:0")
        reader = self.reader(socket.create_connection(("127.0.0.1", port)))
        self.assertTrue(reader.wait(lambda c: c.started == 1))
        self.ask_until(server, reader, 4)
        self.assertIsNone(reader.frames[0].query)

    def test_listen_over_a_reload(self):
        """The socket stays; a reader that a reload sends away finds the same address."""
        server = self.tapped(f"dnstap listen {self.path}")
        before = self.unix_reader()
        self.assertTrue(before.wait(lambda c: c.started == 1))
        self.ask_until(server, before)
        server.signal(signal.SIGUSR1)
        server.wait_line("Reloading complete")
        self.assertTrue(before.wait(lambda c: c.finished == 1))
        after = self.unix_reader()
        self.assertTrue(after.wait(lambda c: c.started == 1))
        self.ask_until(server, after)

    def test_listen_readers_that_are_none(self):
        """Whoever says nothing, or something else, keeps no other reader away for long; nor does one that does not read."""
        server = self.tapped(f"dnstap listen {self.path} full {{\n extra \"{'x' * 60000}\"\n }}")
        for greeting in (b"GET / HTTP/1.0\r\n\r\n", b""):
            conn = socket.socket(socket.AF_UNIX)
            conn.connect(self.path)
            conn.sendall(greeting)
            conn.shutdown(socket.SHUT_WR)
            server.wait_line(r"^\[WARNING\] plugin/dnstap: Error creating encoder for dnstap client: ")
            conn.close()
        deaf = self.unix_reader()
        deaf.reads = False
        self.assertTrue(deaf.wait(lambda c: c.connections == 0))
        began = time.monotonic()
        for i in range(50):
            self.assertEqual(Message(server.udp(wire.query(f"q{i}.test"))).rcode, wire.NOERROR)
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - began, 10)

    def test_listen_failures(self):
        """They are lines in the log, and the daemon serves, as CoreDNS does."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        failed = r"^\[ERROR\] plugin/dnstap: Failed to start dnstap listener: "
        in_use = "bind: address already in use$"
        for directive, line in {
            f"dnstap listen tcp://127.0.0.1:{port}": f"{failed}listen tcp 127.0.0.1:{port}: {in_use}",
            f"dnstap listen {self.path}\n dnstap listen {self.path}": f"{failed}listen unix {self.path}: {in_use}",
            "dnstap listen tls://127.0.0.1:0": r"^\[WARNING\] plugin/dnstap: TLS listener requires cert and key files$",
            "dnstap listen tls://127.0.0.1:0 {\n tls /nonesuch /nonesuch\n }": f"{failed}/nonesuch: .*o such file",
        }.items():
            server = self.tapped(directive)
            server.wait_line(line)
            self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def authority(self):
        folder = os.path.dirname(self.path)
        certificates.make(folder)
        return folder

    def tls_collector(self, folder):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
        return self.collector(tcp=True, tls=context)

    def test_tls(self):
        """The collector's certificate is for its address, and of an authority that the system trusts."""
        folder = self.authority()
        collector = self.tls_collector(folder)
        port = collector.server.getsockname()[1]
        server = self.tapped(f"dnstap tls://127.0.0.1:{port} full", env={"SSL_CERT_FILE": f"{folder}/ca.pem"})
        names = [f"n{i}.test" for i in range(200)]
        for qname in names:
            server.udp(wire.query(qname))
        self.assertEqual(server.stop(), 0)
        self.assertTrue(collector.wait(lambda c: c.finished == 1))
        self.assertEqual(len(collector.frames), 4 * len(names))

    @unittest.skipUnless(knows_localhost(), "localhost is not 127.0.0.1 here")
    def test_tls_is_verified(self):
        folder = self.authority()
        collector = self.tls_collector(folder)
        port = collector.server.getsockname()[1]
        failed = r"^\[ERROR\] plugin/dnstap: No connection to dnstap endpoint: tls: "
        for host, trusted, line in (
            ("127.0.0.1", "stranger", failed + "unable to get local issuer certificate$"),
            ("localhost", "ca", failed + "hostname mismatch$"),
        ):
            server = self.tapped(f"dnstap tls://{host}:{port}", env={"SSL_CERT_FILE": f"{folder}/{trusted}.pem"})
            server.wait_line(line)
        server = self.tapped(f"dnstap tls://localhost:{port} {{\n skipverify\n }}", env={"SSL_CERT_FILE": f"{folder}/stranger.pem"})
        server.udp(wire.query("a.test"))
        self.assertTrue(collector.wait(lambda c: len(c.frames) == 4))

    def tls_reader(self, port, folder, name=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(f"{folder}/ca.pem")
        if name is not None:
            context.load_cert_chain(f"{folder}/{name}.pem", f"{folder}/{name}.key")
        return self.reader(context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"))

    def test_listen_tls(self):
        """With a CA readers need a certificate of its; with skipverify only those that show one do."""
        folder = self.authority()
        pair = f"{folder}/server.pem {folder}/server.key"
        for option, welcome, refused in (
            ("", (None, "stranger"), ()),
            (f"{folder}/ca.pem", ("client",), (None, "stranger")),
            (f"{folder}/ca.pem\n skipverify", (None, "client"), ("stranger",)),
        ):
            server, port = self.listening(f"dnstap listen tls://127.0.0.1:0 full {{\n tls {pair} {option}\n }}")
            for name in welcome:
                reader = self.tls_reader(port, folder, name)
                self.assertTrue(reader.wait(lambda c: c.started == 1), (option, name))
                self.ask_until(server, reader)
            for count, name in enumerate(refused, 1):
                reader = self.tls_reader(port, folder, name)
                server.wait_line(r"^\[WARNING\] plugin/dnstap: Error creating encoder for dnstap client: tls: ", count)
                self.assertEqual(reader.started, 0)

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
            "dnstap listen": at.format(2) + "dnstap listen requires an endpoint argument",
            "dnstap listen /s full 0": at.format(2) + "dnstap: MultipleTcpWriteBuf must be between 1 and 1024 (MiB units): 0",
            "dnstap listen tls://:1 {\n tls a\n }": at.format(3) + "tls requires cert and key file paths",
            "dnstap tls://a:b": at.format(2) + count.format("tls://a:b"),
        }.items():
            result = validate(f". {{\n {directive}\n forward . 127.0.0.1\n}}\n")
            self.assertEqual((result.returncode, result.stderr), (1, error + "\n"), directive)
        for directive in (
            "dnstap /s full 2 3 {\n skipverify\n }", "dnstap tcp://h:1", "dnstap unix:///s", "dnstap tls://h:1 full", "dnstap listen tcp://h:1/x",
            "dnstap listen tls://:1 full 2 {\n tls a b c d\n skipverify\n }", "dnstap listen /s x", "dnstap tls://[::1]:1",
        ):
            self.assertEqual(validate(f". {{\n {directive}\n forward . 127.0.0.1\n}}\n").returncode, 0, directive)


if __name__ == "__main__":
    suite.run()
