#!/usr/bin/env python3
"""The JSON description is all that a host needs: a Python host forwards queries through forward.so in both modes.

    FWD_MODULE=forward.so FWD_MANIFEST=forward.json FWD_ABI=forward-abi.json test_host.py
"""

import json
import os
import re
import socket
import struct
import sys
import threading
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import host  # noqa: E402
import tap  # noqa: E402

SECOND = 10 ** 9
ADDRESS = bytes([192, 0, 2, 53])


def name_wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.strip(".").split(".") if label) + b"\0"


def query_wire(number, name):
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + name_wire(name) + struct.pack("!2H", 1, 1)


class Upstream:
    """A DNS server on one loopback port, UDP and TCP: answers with one A record, and not at all to names under drop."""

    def __init__(self):
        self.seen = []
        self.arrived = threading.Condition()
        while True:  # the port of the UDP socket may be taken for TCP
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind(("127.0.0.1", 0))
            self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                self.tcp.bind(self.udp.getsockname())
                break
            except OSError:
                self.udp.close()
                self.tcp.close()
        self.tcp.listen()
        self.addr = "127.0.0.1:%d" % self.udp.getsockname()[1]
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self.run_udp, self.run_tcp)]
        for thread in self.threads:
            thread.start()

    def answer(self, proto, query):
        with self.arrived:
            self.seen.append((proto, query))
            self.arrived.notify_all()
        if b"\x04drop" in query:
            return None
        end = query.index(b"\0", 12) + 5
        return (query[:2] + b"\x81\x80" + struct.pack("!4H", 1, 1, 0, 0) + query[12:end]
                + b"\xc0\x0c" + struct.pack("!2HIH", 1, 1, 60, 4) + ADDRESS)

    def run_udp(self):
        while True:
            query, peer = self.udp.recvfrom(65535)
            if not query:
                return
            answer = self.answer("udp", query)
            if answer:
                self.udp.sendto(answer, peer)

    def run_tcp(self):
        while True:
            try:
                conn, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.run_conn, args=(conn,), daemon=True).start()

    def run_conn(self, conn):
        with conn, conn.makefile("rb") as stream:
            while length := stream.read(2):
                answer = self.answer("tcp", stream.read(int.from_bytes(length, "big")))
                if answer:
                    conn.sendall(len(answer).to_bytes(2, "big") + answer)

    def wait_seen(self, count):
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.seen) >= count, 10)

    def close(self):
        self.udp.sendto(b"", self.udp.getsockname())  # an empty datagram ends run_udp
        self.tcp.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


class Base(unittest.TestCase):
    def setUp(self):
        self.abi = host.Abi(os.environ["FWD_ABI"])
        self.module = host.Module(self.abi, os.environ["FWD_MODULE"])
        self.upstream = Upstream()
        self.addCleanup(self.upstream.close)

    def open(self, io_threads, **options):
        made = host.Host(self.module, {"io_threads": io_threads, "forward": [
            {"from": ".", "to": [{"addr": self.upstream.addr}], **options}]})
        self.addCleanup(made.destroy)
        return made

    def check_answer(self, opened, query, number):
        """An accepted query ends with the upstream's answer under the client's ID."""
        self.assertEqual(query.verdict, self.abi.FWD_VERDICT_ACCEPTED)
        self.assertNotEqual(query.handle, 0)
        completion = opened.wait(query)
        self.assertEqual(completion.kind, self.abi.FWD_KIND_ANSWER, completion.detail)
        self.assertEqual(completion.error, self.abi.FWD_OK)
        self.assertEqual(completion.wire[:2], number.to_bytes(2, "big"))
        self.assertTrue(completion.wire.endswith(ADDRESS))
        self.assertEqual(completion.upstream, self.upstream.addr)
        self.assertEqual(completion.attempts, 1)
        return completion


class Modes(Base):
    """Everything that both modes must do; io_threads is set by the subclasses."""

    def test_udp_and_tcp(self):
        opened = self.open(self.io_threads)
        completion = self.check_answer(opened, opened.serve(query_wire(4711, "one.test"))[0], 4711)
        self.assertEqual(completion.proto, self.abi.FWD_PROTO_UDP)
        completion = self.check_answer(opened, opened.serve(query_wire(4712, "two.test"), tcp=True)[0], 4712)
        self.assertEqual(completion.proto, self.abi.FWD_PROTO_TCP)
        self.assertEqual([proto for proto, _ in self.upstream.seen], ["udp", "tcp"])
        opened.stop(SECOND)

    def test_batch(self):
        opened = self.open(self.io_threads)
        queries = opened.serve(*(query_wire(number, f"n{number}.test") for number in range(20)))
        for number, query in enumerate(queries):
            self.check_answer(opened, query, number)
        self.assertEqual(len(opened.completions), 20)

    def test_cancel(self):
        opened = self.open(self.io_threads)
        query, = opened.serve(query_wire(1, "a.drop"))
        self.assertTrue(self.upstream.wait_seen(1))
        opened.cancel(query.handle)
        self.assertEqual(opened.wait(query).kind, self.abi.FWD_KIND_CANCELED)
        with self.assertRaises(host.Failure) as caught:
            opened.cancel(query.handle)
        self.assertEqual(caught.exception.code, self.abi.FWD_ERR_NOTFOUND)

    def test_stop_ends_what_is_in_flight(self):
        opened = self.open(self.io_threads)
        query, = opened.serve(query_wire(1, "a.drop"))
        opened.stop(0)
        self.assertEqual(opened.completions[query.token].kind, self.abi.FWD_KIND_CANCELED)
        with self.assertRaises(host.Failure) as caught:
            opened.serve(query_wire(2, "b.test"))
        self.assertEqual(caught.exception.code, self.abi.FWD_ERR_STATE)

    def test_verdicts_without_completion(self):
        opened = self.open(self.io_threads, **{"from": "example.org."})
        query, = opened.serve(query_wire(1, "one.test"))
        self.assertEqual(query.verdict, self.abi.FWD_VERDICT_NEXT)
        query, = opened.serve(query_wire(1, "www.example.org")[:20])
        self.assertEqual((query.verdict, query.rcode), (self.abi.FWD_VERDICT_RCODE, 1))
        self.assertEqual(self.module.forward.match(opened.instance, name_wire("www.example.org"), 17), 1)
        self.assertEqual(self.module.forward.match(opened.instance, name_wire("test"), 6), 0)

    def test_proxy(self):
        opened = self.open(self.io_threads)
        proxies = self.module.proxies
        self.assertEqual(proxies.count(opened.instance), 1)
        proxy = proxies.at(opened.instance, 0)
        self.assertIsNone(proxies.at(opened.instance, 1))
        self.assertEqual(host.ctypes.string_at(proxies.addr(proxy)).decode(), self.upstream.addr)
        self.assertEqual((proxies.fails(proxy), proxies.down(proxy)), (0, 0))
        query = opened.exchange(proxy, query_wire(7, "one.test"), self.abi.FWD_EXCHANGE_FORCE_TCP)
        self.assertEqual(self.check_answer(opened, query, 7).proto, self.abi.FWD_PROTO_TCP)
        query = opened.exchange(proxy, query_wire(8, "two.test"), self.abi.FWD_EXCHANGE_FORCE_TCP)
        self.check_answer(opened, query, 8)
        stats = opened.pool_stats(proxy, self.abi.FWD_PROTO_TCP)
        self.assertEqual((stats.misses, stats.hits, stats.idle, stats.active), (1, 1, 1, 0))

    def test_info_and_metrics(self):
        opened = self.open(self.io_threads)
        self.check_answer(opened, opened.serve(query_wire(1, "one.test"))[0], 1)
        self.assertIn(self.upstream.addr, json.dumps(opened.info()))
        text = self.module.metrics(self.abi.FWD_METRICS_PROMETHEUS)
        self.assertRegex(text, r'coredns_proxy_request_duration_seconds_count\{[^}]*to="%s"' % re.escape(self.upstream.addr))
        families = {metric["name"] for metric in json.loads(self.module.describe())["metrics"]}
        for family in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
            self.assertIn(family, families)
        self.assertTrue(json.loads(self.module.metrics(self.abi.FWD_METRICS_JSON)))


class Threaded(Modes):
    io_threads = 1

    def test_no_poll_fd(self):
        opened = self.open(1)
        self.assertEqual(self.module.forward.poll_fd(opened.instance, 0), self.abi.FWD_ERR_STATE)
        self.assertEqual(self.module.forward.run(opened.instance, 0), self.abi.FWD_ERR_STATE)


class HostDriven(Modes):
    io_threads = 0


class Configuration(Base):
    def test_corefile(self):
        """fwd.corefile/1, its forward tokens through corefile_to_json, and the result through create."""
        parsed = self.module.parse_corefile(f".:1053 {{\n  log\n  forward . {self.upstream.addr} {{\n    max_fails 3\n  }}\n}}\n")
        block, = parsed["blocks"]
        self.assertEqual([text for file, line, text, *zones in block["keys"]], [".:1053"])
        lines = next(lines for name, *lines in block["directives"] if name == "forward")
        tokens = [(text, file, line) for file, line, *texts in lines for text in texts]
        self.assertEqual(tokens[0], ("forward", "Corefile", 3))
        config = json.loads(self.module.corefile_to_json(tokens))
        self.assertEqual(config["forward"][0]["max_fails"], 3)
        opened = host.Host(self.module, {**config, "io_threads": 1})
        self.addCleanup(opened.destroy)
        self.check_answer(opened, opened.serve(query_wire(9, "one.test"))[0], 9)

    def test_describe_lists_every_option_and_its_default(self):
        config = json.loads(self.module.corefile_to_json(text="forward . 127.0.0.1"))
        stanza, = config["forward"]
        described = {option["name"]: option["default"] for option in json.loads(self.module.describe())["config"]["stanza"]}
        self.assertEqual(stanza.pop("to"), [{"addr": "127.0.0.1:53", "transport": "dns", "tls_servername": ""}])
        del described["to"]
        self.assertEqual(stanza, described)

    def test_brief_configuration(self):
        """Only what is set, and it comes to the same as the whole."""
        text = "forward . 127.0.0.1 tls://127.0.0.2 {\n  max_fails 2\n  health_check 1s\n}\n"
        brief = json.loads(self.module.corefile_to_json(text=text, flags=self.abi.FWD_DIRECTIVE_BRIEF))
        to = [{"addr": "127.0.0.1:53"}, {"addr": "127.0.0.2:853", "transport": "tls"}]
        self.assertEqual(brief, {"forward": [{"from": ".", "to": to, "max_fails": 2, "health_check": {"interval": "1s", "domain": "."}}]})
        opened = host.Host(self.module, {**brief, "io_threads": 1})
        self.addCleanup(opened.destroy)
        self.assertEqual(opened.info()["config"]["forward"], json.loads(self.module.corefile_to_json(text=text))["forward"])
        with self.assertRaises(host.Failure) as caught:
            self.module.corefile_to_json(text=text, flags=2)
        self.assertEqual(caught.exception.code, self.abi.FWD_ERR_ARG)

    def test_documents_have_the_described_form(self):
        opened = self.open(1)
        examples = {document["name"]: document["example"] for document in self.abi.doc["documents"]}
        info = opened.info()
        self.assertEqual(set(info), set(examples["info"]))
        self.assertEqual(set(info["upstreams"][0]), set(examples["info"]["upstreams"][0]))
        parsed = self.module.parse_corefile(".:53 {\n  forward . 127.0.0.1\n}\n")
        self.assertEqual(parsed, examples["corefile"])
        for family in json.loads(self.module.metrics(self.abi.FWD_METRICS_JSON)):
            self.assertEqual(set(family), set(examples["metrics"][0]))
        self.module.check(json.dumps(examples["configuration"]))

    def test_errors_say_where(self):
        with self.assertRaises(host.Failure) as caught:
            self.module.parse_corefile(". {\n", file="/etc/Corefile")
        self.assertEqual(caught.exception.code, self.abi.FWD_ERR_SYNTAX)
        self.assertIn("/etc/Corefile", caught.exception.message)
        with self.assertRaises(host.Failure) as caught:
            self.module.corefile_to_json(text="forward . 127.0.0.1 {\n  nonsense\n}\n")
        self.assertIn("nonsense", caught.exception.message)
        self.assertEqual((caught.exception.file, caught.exception.line), ("Corefile", 2))
        with self.assertRaises(host.Failure) as caught:
            self.module.check('{"forward": [{"to": [{"addr": "127.0.0.1:53"}], "max_fails": "x"}]}')
        self.assertEqual(caught.exception.code, self.abi.FWD_ERR_CONFIG)
        self.assertEqual(caught.exception.pointer, "/forward/0/max_fails")

    def test_describe_is_the_manifest(self):
        with open(os.environ["FWD_MANIFEST"], "rb") as file:
            self.assertEqual(self.module.describe(), file.read())
        described = {(error["name"], error["code"]) for error in json.loads(self.module.describe())["errors"]}
        self.assertEqual(described, {(error["name"], error["value"]) for error in self.abi.doc["errors"]})
        self.assertEqual(self.module.strerror(self.abi.FWD_ERR_TIMEOUT), "i/o timeout")


if __name__ == "__main__":
    del Modes  # its tests run as those of its subclasses
    tap.main()
