"""Real servers behind tls:// and https://, and what every one of them must serve, each as a DoT and as a DoH server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import suite
import wire
from daemon import PATIENCE, free_port
from test_dnstap import FORWARDER_QUERY, FORWARDER_RESPONSE, Collector
from wire import Message

NAME = "one.test"
DOT, DOH = 3, 4  # of dnstap's SocketProtocol


class Server:
    """A server process in a directory of its own, with a certificate for NAME by an authority made for it."""

    def __init__(self, program, binary, backend):
        self.binary = binary
        self.directory = tempfile.TemporaryDirectory()
        self.backend = backend
        self.dot, self.doh = free_port(), free_port()
        self.certify()
        command = getattr(self, program)()
        with open(self.path("log"), "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for port in (self.dot, self.doh):
            self.await_port(port)

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def certify(self):
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        extensions = self.write("ext", f"subjectAltName=DNS:{NAME}\n")
        self.openssl("req", "-x509", *curve, "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem")
        self.openssl("req", *curve[:-2], "-subj", "/CN=server", "-keyout", "key", "-out", "csr")
        self.openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                     "-extfile", extensions, "-out", "cert")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory.name, check=True, capture_output=True)

    def unbound(self):
        return [self.binary, "-d", "-c", self.write("unbound.conf", f"""server:
 username: ""
 chroot: ""
 pidfile: ""
 directory: "{self.directory.name}"
 use-syslog: no
 do-daemonize: no
 module-config: "iterator"
 do-not-query-localhost: no
 local-zone: "test." nodefault
 interface: 127.0.0.1@{self.dot}
 interface: 127.0.0.1@{self.doh}
 tls-port: {self.dot}
 https-port: {self.doh}
 tls-service-key: "{self.path('key')}"
 tls-service-pem: "{self.path('cert')}"
forward-zone:
 name: "."
 forward-addr: 127.0.0.1@{self.backend}
remote-control:
 control-enable: no
""")]

    def dnsdist(self):
        tls = f"'127.0.0.1:%d', '{self.path('cert')}', '{self.path('key')}'"
        return [self.binary, "--supervised", "--disable-syslog", "-C", self.write("dnsdist.conf", f"""
setLocal('127.0.0.1:{free_port()}')
addTLSLocal({tls % self.dot})
addDOHLocal({tls % self.doh}, '/dns-query')
newServer({{address='127.0.0.1:{self.backend}', healthCheckMode='up'}})
""")]

    def coredns(self):
        block = f"{{\n bind 127.0.0.1\n tls {self.path('cert')} {self.path('key')}\n forward . 127.0.0.1:{self.backend}\n}}\n"
        return [self.binary, "-conf", self.write("Corefile", f"tls://.:{self.dot} {block}https://.:{self.doh} {block}")]

    def await_port(self, port):
        for _ in range(PATIENCE * 20):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        with open(self.path("log"), encoding="utf-8") as log:
            raise AssertionError(f"the server does not come up: {log.read()}")

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self.directory.cleanup()


class Peers(suite.Case):
    program = None

    @classmethod
    def binary(cls):
        return shutil.which(cls.program, path=os.environ["PATH"] + ":/usr/sbin")

    def setUp(self):
        binary = self.binary()
        for name, there in ((self.program, binary), ("openssl", shutil.which("openssl"))):
            if not there:
                print(f"# {name} is not there: NOT tested against {self.program}", file=sys.stderr)
                self.skipTest(f"{name} is not there")
        self.server = Server(self.program, binary, self.upstream().port)
        self.addCleanup(self.server.close)

    def forward_to(self, transport, options="", name=NAME, directives="errors"):
        port = self.server.dot if transport == "tls" else self.server.doh
        return self.daemon(
            f".:0 {{\n bind 127.0.0.1\n {directives}\n forward . {transport}://127.0.0.1:{port} {{\n"
            f"  tls {self.server.path('ca.pem')}\n  tls_servername {name}\n  {options}\n }}\n}}\n")

    def check(self, transport, options=""):
        server = self.forward_to(transport, options)
        for i in range(30):
            query = wire.query(f"n{i}.test", ident=i)
            reply = Message(server.udp(query) if i % 2 else server.tcp(query))
            self.assertEqual((reply.id, reply.rcode), (i, wire.NOERROR))
            self.assertEqual(reply.sections[0][0][3], b"\xc0\0\2\1")

    def test_dot(self):
        self.check("tls")

    def test_dot_pipelined(self):
        self.check("tls", "pipeline 20")

    def test_dot_without_reuse(self):
        self.check("tls", "expire 0s")

    def test_doh_post(self):
        self.check("https")

    def test_doh_get(self):
        self.check("https", "doh_method GET")

    def test_options_of_one_hop(self):
        """The server sees padding and keepalive; the client, who sent no OPT, gets none."""
        for transport in ("tls", "https"):
            server = self.forward_to(transport, "padding 128\n  edns_keepalive")
            for i in range(10):
                reply = Message(server.udp(wire.query(f"n{i}.test", ident=i)))
                self.assertEqual((reply.id, reply.rcode, reply.opt), (i, wire.NOERROR, None))
                reply = Message(server.udp(wire.query(f"o{i}.test", additional=[wire.opt(options=wire.option(10, b"12345678"))])))
                self.assertEqual(reply.rcode, wire.NOERROR)
                self.assertNotIn(b"\0\x0c", reply.opt["options"])

    @suite.needs("dnstap")
    def test_dnstap_case_81(self):
        """Messages of upstreams carry the transport that they really took."""
        for transport, protocol in (("tls", DOT), ("https", DOH)):
            path = self.server.path(transport + ".sock")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen()
            collector = Collector(listener)
            self.addCleanup(collector.close)
            server = self.forward_to(transport, directives=f"dnstap {path}")
            server.udp(wire.query("a.test"))
            self.assertTrue(collector.wait(lambda c: len(c.frames) == 4))
            for frame in collector.frames:
                upstream = frame.type in (FORWARDER_QUERY, FORWARDER_RESPONSE)
                self.assertEqual(frame.protocol, protocol if upstream else 1)
                if upstream:
                    self.assertEqual(frame.response_port, self.server.dot if transport == "tls" else self.server.doh)

    def test_wrong_name(self):
        for transport in ("tls", "https"):
            server = self.forward_to(transport, "max_connect_attempts 1", "two.test")
            reply = Message(server.udp(wire.query("a.test")))
            self.assertEqual(reply.rcode, wire.SERVFAIL)
            server.wait_line(r"certificate for 'two.test': hostname mismatch")

    def test_dig(self):
        if not shutil.which("dig"):
            print("# dig is not installed", file=sys.stderr)
            self.skipTest("dig is not installed")
        for transport in ("tls", "https"):
            server = self.forward_to(transport)
            answer = subprocess.run(["dig", "@127.0.0.1", "-p", str(server.port), "+short", "www.test", "A"],
                                    capture_output=True, text=True, timeout=PATIENCE, check=True)
            self.assertEqual(answer.stdout, "192.0.2.1\n")
