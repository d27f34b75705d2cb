"""prometheus, health, ready, reload, and the page about the upstreams."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

import certificates
import suite
import wire
from daemon import PATIENCE, free_port, validate
from wire import Message


def parse(document):
    """{name: {labels as text: value}} of a document in the text format."""
    series = {}
    for line in document.splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-zA-Z_:]\w*)(?:\{(.*)\})? (\S+)", line)
            series.setdefault(match[1], {})[match[2] or ""] = float(match[3])
    return series


class Http(suite.Case):
    def block(self, upstream, directives, zone="."):
        return f"{zone}:0 {{\n bind 127.0.0.1\n {directives}\n forward . {upstream.address} {{\n max_fails 0\n }}\n}}\n"

    def start(self, directives, upstream=None, **kwargs):
        return self.daemon(self.block(upstream or self.upstream(), directives), **kwargs)

    def port(self, server, plugin):
        line = server.wait_line(rf"^\[INFO\] plugin/{plugin}: listening on ")
        return int(line.rsplit(":", 1)[1])

    def get(self, port, path, method="GET", host="127.0.0.1"):
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers
        finally:
            connection.close()

    def wait(self, what):
        deadline = time.monotonic() + PATIENCE
        while not what() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertTrue(what())


@suite.needs("http")
class Prometheus(Http):
    def test_series_of_the_server(self):
        server = self.start("prometheus 127.0.0.1:0\n log x.test\n errors")
        port = self.port(server, "prometheus")
        server.udp(wire.query("a.test"))
        server.udp(wire.query("a.test", wire.AAAA, additional=[wire.opt(1232, wire.DO)]))
        server.tcp(wire.query("a.test", 65280))
        status, document, headers = self.get(port, "/metrics")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        series = parse(document)
        base = f'server="dns://127.0.0.1:{server.port}",zone=".",view=""'
        self.assertEqual(
            series["coredns_dns_requests_total"],
            {
                f'{base},proto="udp",family="1",type="A"': 1,
                f'{base},proto="udp",family="1",type="AAAA"': 1,
                f'{base},proto="tcp",family="1",type="other"': 1,
            },
        )
        self.assertEqual(series["coredns_dns_do_requests_total"], {base: 1})
        self.assertEqual(series["coredns_dns_responses_total"], {f'{base},rcode="NOERROR",plugin="forward"': 3})
        self.assertEqual(series["coredns_dns_request_duration_seconds_count"], {base: 3})
        buckets = series["coredns_dns_request_duration_seconds_bucket"]
        self.assertEqual([label.rsplit("=", 1)[1] for label in buckets],
                         ['"0.00025"', '"0.0005"', '"0.001"', '"0.002"', '"0.004"', '"0.008"', '"0.016"', '"0.032"',
                          '"0.064"', '"0.128"', '"0.256"', '"0.512"', '"1.024"', '"2.048"', '"4.096"', '"8.192"', '"+Inf"'])
        self.assertEqual(buckets[f'{base},le="+Inf"'], 3)
        sizes = series["coredns_dns_request_size_bytes_sum"]
        self.assertEqual(sizes, {f'{base},proto="udp"': 24 + 35, f'{base},proto="tcp"': 24})
        self.assertEqual(series["coredns_dns_response_size_bytes_bucket"][f'{base},proto="udp",le="100"'], 2)
        names = {re.search(r'name="(\w+)"', label)[1] for label in series["coredns_plugin_enabled"]}
        self.assertEqual(names, {"prometheus", "errors", "log", "forward"})
        for name in ("coredns_build_info", "coredns_panics_total", "coredns_reload_failed_total",
                     "coredns_health_request_failures_total", "process_resident_memory_bytes", "process_open_fds",
                     "process_cpu_seconds_total", "process_start_time_seconds", "coredns_proxy_conn_cache_misses_total"):
            self.assertIn(name, series)
        self.assertAlmostEqual(series["process_start_time_seconds"][""], time.time(), delta=120)

    def test_label_rcode(self):
        """RCODEs without a meaning share one series."""
        answers = iter([(0, 1), (7, 1), (12, 0), (8, 1), (15, 255)])  # the RCODE's low four bits, and the rest: 16, 23, 12, 24, 4095

        def answer(query):
            low, high = next(answers)
            return wire.message(Message(query).id, wire.QR | low, [Message(query).questions[0]], additional=[wire.opt(1232, rcode=high)])

        server = self.start("prometheus 127.0.0.1:0", self.upstream(answer))
        for _ in range(5):
            server.udp(wire.query("a.test", additional=[wire.opt(1232)]))
        counts = parse(self.get(self.port(server, "prometheus"), "/metrics")[1])["coredns_proxy_request_duration_seconds_count"]
        self.assertEqual({re.search(r'rcode="(\w+)"', label)[1]: count for label, count in counts.items()},
                         {"BADSIG": 1, "BADCOOKIE": 1, "12": 1, "other": 2})

    def test_failures_and_refusals(self):
        upstream = self.upstream(lambda query: None)
        text = self.block(upstream, "prometheus 127.0.0.1:0", "a.test").replace("max_fails 0", "max_fails 0\n read_timeout 20ms\n max_connect_attempts 1")
        server = self.daemon(text)
        port = self.port(server, "prometheus")
        server.udp(wire.query("x.a.test"))
        server.udp(wire.query("b.test"))
        series = parse(self.get(port, "/metrics")[1])
        base = f'server="dns://127.0.0.1:{server.port}",zone='
        self.assertEqual(
            series["coredns_dns_responses_total"],
            {
                base + '"a.test.",view="",rcode="SERVFAIL",plugin=""': 1,
                base + '"dropped",view="",rcode="REFUSED",plugin=""': 1,
            },
        )
        # as in CoreDNS, where a plugin that wrote nothing has written 0 octets
        self.assertEqual(series["coredns_dns_response_size_bytes_sum"][base + '"a.test.",view="",proto="udp"'], 0)

    def test_block_without_it_is_not_counted(self):
        upstream = self.upstream()
        server = self.daemon(self.block(upstream, "prometheus 127.0.0.1:0", "a.test") + self.block(upstream, "", "b.test"))
        port = self.port(server, "prometheus")
        server.udp(wire.query("b.test"), server.ports["b.test.", "127.0.0.1"])
        self.assertNotIn("coredns_dns_requests_total", parse(self.get(port, "/metrics")[1]))

    def test_ds_counts_for_the_closest_zone(self):
        upstream = self.upstream()
        server = self.daemon(self.block(upstream, "prometheus 127.0.0.1:0", "sub.test:0 test"))
        port = self.port(server, "prometheus")
        server.udp(wire.query("sub.test", wire.DS))
        server.udp(wire.query("a.test", wire.DS))
        document = parse(self.get(port, "/metrics")[1])
        zones = [re.search(r'zone="([^"]*)"', label)[1] for label in document["coredns_dns_requests_total"]]
        self.assertEqual(sorted(zones), ["sub.test.", "test."])
        enabled = {re.search(r'zone="([^"]*)"', label)[1] for label in document["coredns_plugin_enabled"]}
        self.assertEqual(enabled, {"sub.test.", "test."})

    def test_totals_survive_a_reload(self):
        upstream = self.upstream()
        server = self.start("prometheus 127.0.0.1:0", upstream)
        port = self.port(server, "prometheus")
        server.udp(wire.query("a.test"))
        server.write(self.block(upstream, "prometheus 127.0.0.1:0\n errors"))
        server.signal(signal.SIGUSR1)
        server.wait_line("Reloading complete")
        server.udp(wire.query("a.test"))
        series = parse(self.get(port, "/metrics")[1])  # at the same address, which stayed open
        self.assertEqual(list(series["coredns_dns_requests_total"].values()), [2])
        server.write(self.block(upstream, ""))
        server.signal(signal.SIGUSR1)
        server.wait_line("Reloading complete", 2)
        with self.assertRaises(ConnectionRefusedError):
            self.get(port, "/metrics")

    def test_promtool(self):
        if shutil.which("promtool") is None:
            raise unittest.SkipTest("promtool (Debian: prometheus) is not installed: the document is NOT checked by it")
        server = self.start("prometheus 127.0.0.1:0\n health 127.0.0.1:0")
        server.udp(wire.query("a.test"))
        server.tcp(wire.query("a.test"))
        document = self.get(self.port(server, "prometheus"), "/metrics")[1]
        result = subprocess.run(["promtool", "check", "metrics"], input=document, capture_output=True, text=True, check=False)
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    def test_address_in_use_is_logged_only(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = self.start(f"prometheus 127.0.0.1:{taken.getsockname()[1]}")
        server.wait_line(r"^\[ERROR\] plugin/prometheus: .*: listen tcp 127\.0\.0\.1:\d+: bind: address already in use$")
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def test_idle_memory(self):
        server = self.start("prometheus 127.0.0.1:0\n health 127.0.0.1:0\n ready 127.0.0.1:0\n errors")
        port = self.port(server, "prometheus")
        memory = parse(self.get(port, "/metrics")[1])["process_resident_memory_bytes"][""]
        if os.environ.get("FWD_PATIENCE") != "1":
            raise unittest.SkipTest("a sanitizer needs memory of its own")
        self.assertLessEqual(memory, 12 << 20)


@suite.needs("http")
class Health(Http):
    def test_health_and_ready(self):
        server = self.start("health 127.0.0.1:0\n ready 127.0.0.1:0")
        health, ready = self.port(server, "health"), self.port(server, "ready")
        self.assertEqual(self.get(health, "/health")[:2], (200, "OK"))
        self.assertEqual(self.get(health, "/health", "HEAD")[:2], (200, ""))
        self.assertEqual(self.get(health, "/health", "POST")[0], 200)
        self.assertEqual(self.get(ready, "/ready")[:2], (200, "OK"))
        self.assertEqual(self.get(health, "/ready")[:2], (404, "404 page not found\n"))
        self.assertEqual(self.get(ready, "/metrics")[0], 404)

    def test_lameduck(self):
        server = self.start("health 127.0.0.1:0 {\n lameduck 1h\n }\n ready 127.0.0.1:0")
        health, ready = self.port(server, "health"), self.port(server, "ready")
        server.signal(signal.SIGTERM)
        server.wait_line(r"^\[INFO\] plugin/health: Going into lameduck mode for 1h0m0s$")
        self.assertEqual(self.get(health, "/health")[:2], (200, "OK"))
        self.assertEqual(self.get(ready, "/ready")[:2], (503, "Shutting down"))
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(PATIENCE), 0)

    def test_lameduck_ends(self):
        server = self.start("health 127.0.0.1:0 {\n lameduck 300ms\n }")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(PATIENCE), 0)
        self.assertGreaterEqual(time.monotonic() - began, 0.3)

    def test_looks_at_itself(self):
        server = self.start("health 127.0.0.1:0\n prometheus 127.0.0.1:0")
        port = self.port(server, "prometheus")
        count = lambda: parse(self.get(port, "/metrics")[1])["coredns_health_request_duration_seconds_count"][""]
        self.wait(lambda: count() >= 1)
        self.assertEqual(parse(self.get(port, "/metrics")[1])["coredns_health_request_failures_total"][""], 0)

    def test_address_in_use_is_fatal(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = self.start(f"health 127.0.0.1:{taken.getsockname()[1]}", started=False)
            self.assertEqual(server.wait(), 1)
        self.assertRegex(server.errors, r"^listen tcp 127\.0\.0\.1:\d+: bind: address already in use\n$")

    def test_one_address_for_all(self):
        port = free_port()
        server = self.start(f"health 127.0.0.1:{port}\n ready 127.0.0.1:{port}\n prometheus 127.0.0.1:{port}")
        for path in ("/health", "/ready", "/metrics", "/forward"):
            self.assertEqual(self.get(port, path)[0], 200, path)
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)


@suite.needs("http")
class Info(Http):
    def test_json_and_text(self):
        upstream = self.upstream()
        server = self.daemon(
            self.block(upstream, "health 127.0.0.1:0", "a.test") + ".:0 {\n bind 127.0.0.1\n errors\n}\n"
        )
        port = self.port(server, "health")
        server.udp(wire.query("a.test"))
        status, body, headers = self.get(port, "/forward")
        self.assertEqual((status, headers["Content-Type"]), (200, "application/json"))
        servers = json.loads(body)["servers"]
        named = json.loads(self.get(port, "/forward?format=json")[1])["servers"]
        self.assertEqual(named[0]["forward"]["config"], servers[0]["forward"]["config"])
        self.assertEqual([(s["zones"], s["forward"] is None) for s in servers], [(["a.test."], False), (["."], True)])
        self.assertEqual(servers[0]["forward"]["upstreams"][0]["addr"], upstream.address)
        table = self.get(port, "/forward?format=text")[1]
        self.assertRegex(table, rf"a\.test\. on 127\.0\.0\.1:0: started, \d in flight\n +stanza +upstream .*\n +1 +{upstream.address} +dns +up ")
        self.assertIn(". on 127.0.0.1:0: does not forward\n", table)
        self.assertEqual(self.get(port, "/forward?format=xml")[0], 400)

    def test_last_error_and_latency(self):
        """What the columns and the lines below them say is what the document says."""
        upstream = self.upstream()
        forward = f"forward . {upstream.address} 127.0.0.1:1 {{\n policy sequential\n max_fails 0\n }}"
        server = self.daemon(f".:0 {{\n bind 127.0.0.1\n health 127.0.0.1:0\n {forward}\n}}\n")
        port = self.port(server, "health")
        server.udp(wire.query("a.test"))
        upstream.close()
        server.udp(wire.query("b.test"))
        good, dead = json.loads(self.get(port, "/forward")[1])["servers"][0]["forward"]["upstreams"]
        self.assertEqual(good["latency"]["count"], 1)
        self.assertIsNone(dead["latency"])
        error = dead["last_error"]
        self.assertEqual((error["proto"], error["error"]), ("udp", "refused"))
        table = self.get(port, "/forward?format=text")[1]
        self.assertRegex(table, rf"(?m)^ +1 +{good['addr']} .* {good['latency']['p50']['value'] * 1000:.2f} ")
        self.assertRegex(table, rf"(?m)^ +1 +{dead['addr']} +dns +\w+ +\d+ +\d+ +- +- +- +\d+ +\d+ ")
        self.assertRegex(table, r"(?m)^ +last error \d{4}-\d\d-\d\dT\S+Z (read|write) udp 127.0.0.1:1: connection refused after ")

    def test_signal(self):
        upstream = self.upstream()
        server = self.start("", upstream)
        server.signal(signal.SIGUSR2)
        server.wait_line(rf"^ +1 +{upstream.address} +dns +up ")
        self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)

    def test_over_reloads(self):
        """Who reads the page while the configuration changes finds one or the other."""
        upstream = self.upstream()
        server = self.start("health 127.0.0.1:0", upstream)
        port = self.port(server, "health")
        for i in range(5):
            server.write(self.block(upstream, "health 127.0.0.1:0") + f"# {i}\n")
            server.signal(signal.SIGUSR1)
            for _ in range(5):
                self.assertEqual(len(json.loads(self.get(port, "/forward")[1])["servers"]), 1)
            server.wait_line("Reloading complete", i + 1)


@suite.needs("http")
class Reload(Http):
    """The reload directive: the file's tokens count, not its time (case 96)."""

    def test_case_96_changed_file(self):
        first, second = self.upstream(), self.upstream()
        directives = "prometheus 127.0.0.1:0\n reload 2s 0s"
        server = self.start(directives, first)
        port = self.port(server, "prometheus")
        running = server.wait_line(r"^\[INFO\] plugin/reload: Running configuration SHA512 = [0-9a-f]{128}$")
        self.assertNotIn("coredns_reload_version_info", parse(self.get(port, "/metrics")[1]))
        server.write(self.block(second, directives))
        server.wait_line(r"^\[INFO\] Reloading complete$")
        server.udp(wire.query("a.test"))
        self.assertEqual((len(first.queries), len(second.queries)), (0, 1))
        after = server.wait_line(r"Running configuration SHA512", 2)
        self.assertNotEqual(running, after)
        value = after.rsplit(" ", 1)[1]
        info = parse(self.get(port, "/metrics")[1])["coredns_reload_version_info"]
        self.assertEqual(info, {f'hash="sha512",value="{value}"': 1})
        server.write("nonsense {\n")
        server.wait_line(r"^\[WARNING\] plugin/reload: Corefile parse failed: .*Corefile:")
        server.write(".:0 {\n nonsense\n}\n")
        server.wait_line(r"^\[ERROR\] plugin/reload: Corefile changed but reload failed: .*Unknown directive 'nonsense'")
        self.assertEqual(parse(self.get(port, "/metrics")[1])["coredns_reload_failed_total"][""], 1)
        server.udp(wire.query("a.test"))
        self.assertEqual(len(second.queries), 2)


@suite.needs("https")
class Https(Http):
    """prometheus { tls FILE }: the web configuration of Prometheus's exporter toolkit, as in CoreDNS."""

    failed = r"^\[ERROR\] plugin/prometheus: Failed to start handler: "

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = directory.name
        self.web = os.path.join(self.folder, "web.yml")
        certificates.make(self.folder)

    def configure(self, *lines, sections=""):
        with open(self.web, "w", encoding="ascii") as file:
            file.write("".join(f"  {line}\n" for line in ("tls_server_config:", *lines)).replace("  tls", "tls", 1) + sections)

    def secured(self):
        return self.start(f"prometheus 127.0.0.1:0 {{\n tls {self.web}\n }}")

    def fetch(self, port, name=None, authority="ca", **limits):
        context = ssl.create_default_context(cafile=f"{self.folder}/{authority}.pem")
        for limit, value in limits.items():
            setattr(context, limit, value)
        if name is not None:
            context.load_cert_chain(f"{self.folder}/{name}.pem", f"{self.folder}/{name}.key")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
        try:
            connection.request("GET", "/metrics")
            return parse(connection.getresponse().read().decode())
        finally:
            connection.close()

    def test_served(self):
        self.configure("cert_file: server.pem", "key_file: server.key", sections="http_server_config:\n  http2: true\n")
        server = self.secured()
        port = self.port(server, "prometheus")
        self.assertIn("coredns_build_info", self.fetch(port))
        with self.assertRaises(ssl.SSLError):
            self.fetch(port, authority="stranger")
        with self.assertRaises((http.client.HTTPException, OSError)):
            self.get(port, "/metrics")

    def test_versions(self):
        self.configure("cert_file: server.pem", "key_file: server.key", "min_version: TLS13")
        port = self.port(self.secured(), "prometheus")
        self.assertIn("coredns_build_info", self.fetch(port, minimum_version=ssl.TLSVersion.TLSv1_3))
        with self.assertRaises(OSError):
            self.fetch(port, maximum_version=ssl.TLSVersion.TLSv1_2)

    def test_clients(self):
        pair = ("cert_file: server.pem", "key_file: server.key", "client_ca_file: ca.pem")
        refusal = (http.client.HTTPException, OSError)
        for policy, welcome, refused in (
            ("RequireAndVerifyClientCert", ("client",), (None, "stranger")),
            ("VerifyClientCertIfGiven", (None, "client"), ("stranger",)),
            ("RequireAnyClientCert", ("client", "stranger"), (None,)),
            ("RequestClientCert", (None, "client", "stranger"), ()),
        ):
            self.configure(*pair, f"client_auth_type: {policy}")
            port = self.port(self.secured(), "prometheus")
            for name in welcome:
                self.assertIn("coredns_build_info", self.fetch(port, name), (policy, name))
            for name in refused:
                with self.assertRaises(refusal, msg=(policy, name)):
                    self.fetch(port, name)

    def test_plain_without_section(self):
        with open(self.web, "w", encoding="ascii"):
            pass
        self.assertEqual(self.get(self.port(self.secured(), "prometheus"), "/metrics")[0], 200)

    def test_reload(self):
        """A reload reads the files anew; TLS comes and goes on an address that stays."""
        upstream = self.upstream()
        self.configure("cert_file: server.pem", "key_file: server.key")
        secured = self.block(upstream, f"prometheus 127.0.0.1:0 {{\n tls {self.web}\n }}")
        server = self.daemon(secured)
        port = self.port(server, "prometheus")
        self.fetch(port)
        certificates.make(self.folder)
        with self.assertRaises(ssl.SSLError):
            self.fetch(port)
        server.signal(signal.SIGUSR1)
        server.wait_line("Reloading complete")
        self.assertIn("coredns_build_info", self.fetch(port))
        server.write(self.block(upstream, "prometheus 127.0.0.1:0"))
        server.signal(signal.SIGUSR1)
        server.wait_line("Reloading complete", 2)
        self.assertEqual(self.get(port, "/metrics")[0], 200)
        server.write(secured)
        server.signal(signal.SIGUSR1)
        server.wait_line("Reloading complete", 3)
        self.assertIn("coredns_build_info", self.fetch(port))

    def test_failures(self):
        """As in CoreDNS a line in the log, and no metrics; never an address that is open to more than it should be."""
        pair = ("cert_file: server.pem", "key_file: server.key")
        for lines, sections, error in (
            (("cert_file: server.pem",), "", "missing one of key or key_file"),
            (("key_file: server.key",), "", "missing one of cert or cert_file"),
            (("cert_file: none.pem", "key_file: server.key"), "", r"failed to read cert_file \(.*/none.pem\): No such file or directory"),
            (("cert_file: client.pem", "key_file: server.key"), "", "failed to load X509KeyPair: "),
            ((*pair, "client_ca_file: ca.pem"), "", "client CA's have been configured without a Client Auth Policy"),
            ((*pair, "client_auth_type: Maybe"), "", "invalid ClientAuth: Maybe"),
            ((*pair, "client_auth_type: RequireAndVerifyClientCert"), "", "fwd-resolver needs client_ca_file for RequireAndVerifyClientCert"),
            ((*pair, "min_version: TLS14"), "", "unknown TLS version: TLS14"),
            ((*pair, "cipher_suites: [x]"), "", "fwd-resolver does not have tls_server_config's cipher_suites"),
            (pair, "basic_auth_users:\n  me: x\n", "fwd-resolver does not have the web configuration's basic_auth_users"),
            (pair, "http_server_config:\n  headers: {}\n", "fwd-resolver does not have http_server_config's headers"),
            (("{",), "", "yaml: line "),
        ):
            self.configure(*lines, sections=sections)
            server = self.secured()
            server.wait_line(self.failed + f".*{error}")
            self.assertEqual(Message(server.udp(wire.query("a.test"))).rcode, wire.NOERROR)
        os.unlink(self.web)
        self.secured().wait_line(self.failed + f"TLS config file does not exist: {self.web}$")

    def test_refused(self):
        at = "plugin/prometheus: /dev/stdin:{} - Error during parsing: "
        count = "Wrong argument count or unexpected line ending after '{}'"
        for block, error in {
            "tls": at.format(3) + count.format("tls"),
            "tls a b": at.format(3) + count.format("b"),
            "tls a\n tls b": at.format(4) + "tls block already specified",
        }.items():
            result = validate(f". {{\n prometheus {{\n {block}\n }}\n forward . 127.0.0.1\n}}\n")
            self.assertEqual((result.returncode, result.stderr), (1, error + "\n"), block)
        self.assertEqual(validate(". {\n prometheus :1 {\n tls /nonesuch\n }\n forward . 127.0.0.1\n}\n").returncode, 0)


@suite.needs("http")
class Parse(Http):
    def refused(self, directive, error):
        result = validate(f". {{\n {directive}\n forward . 127.0.0.1\n}}\n")
        self.assertEqual((result.returncode, result.stderr), (1, error + "\n"), directive)

    def test_accepted(self):
        for directive in (
            "prometheus", "prometheus :9153", "prometheus localhost:9153 {\n runtime_metrics\n }", "health", "health :8080",
            "health 127.0.0.1:8080 {\n lameduck 5s\n }", "health {\n lameduck 0\n }", "ready", "ready :8181",
            "ready {\n monitor continuously\n }", "ready {\n monitor until-ready\n }", "reload", "reload 10s",
            "reload 2s 1s", "reload 1m 0s", "health [::1]:8080", "health :8080\n health :8081",
        ):
            result = validate(f". {{\n {directive}\n forward . 127.0.0.1\n}}\n")
            self.assertEqual((result.returncode, result.stderr), (0, ""), directive)

    def test_refused(self):
        at = "/dev/stdin:{} - Error during parsing: "
        count = at.format(2) + "Wrong argument count or unexpected line ending after '{}'"
        for directive, error in {
            "prometheus a b": "plugin/prometheus: " + count.format("b"),
            "prometheus 9153": "plugin/prometheus: address 9153: missing port in address",
            "prometheus {\n nope\n }": "plugin/prometheus: " + at.format(3) + "unknown option: nope",
            "prometheus\n prometheus": "plugin/prometheus: this plugin can only be used once per Server Block",
            "health localhost": "plugin/health: address localhost: missing port in address",
            "health ::1": "plugin/health: address ::1: too many colons in address",
            "health [::1": "plugin/health: address [::1: missing ']' in address",
            "health {\n lameduck\n }": "plugin/health: " + at.format(3) + "Wrong argument count or unexpected line ending after 'lameduck'",
            "health {\n lameduck 5\n }": "plugin/health: unable to parse lameduck duration value: '5' : time: missing unit in duration \"5\"",
            "health {\n lameduck 1d\n }": "plugin/health: unable to parse lameduck duration value: '1d' : time: unknown unit \"d\" in duration \"1d\"",
            "health {\n lameduck x\n }": "plugin/health: unable to parse lameduck duration value: 'x' : time: invalid duration \"x\"",
            "health {\n duck 1s\n }": "plugin/health: " + at.format(3) + "unknown property 'duck'",
            "ready {\n monitor never\n }": "plugin/ready: " + at.format(3) + "monitor type 'never' not supported",
            "ready\n ready": "plugin/ready: this plugin can only be used once per Server Block",
            "reload 1s": "plugin/reload: interval value must be greater or equal to 2s",
            "reload 5s 500ms": "plugin/reload: jitter value must be 0 or greater or equal to 1s",
            "reload 5s 1s x": "plugin/reload: " + count.format("x"),
            "reload 5": "plugin/reload: time: missing unit in duration \"5\"",
        }.items():
            self.refused(directive, error)


if __name__ == "__main__":
    suite.run()
