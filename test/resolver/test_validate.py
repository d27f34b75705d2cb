"""-validate and -validate -json: corner cases 1 to 13 as an operator meets them, and the checks across server blocks."""

import glob
import json
import os
import subprocess
import tempfile

import suite
from daemon import PATIENCE, RESOLVER, validate

FORWARD = " forward . 127.0.0.1\n"
with open(os.path.join(os.environ["FWD_BUILD"], "module", "forward.json"), encoding="utf-8") as description:
    OURS = [option["name"] for option in json.load(description)["config"]["stanza"] if option["origin"] == "fwd"]


def block(key, body=FORWARD):
    return f"{key} {{\n{body}}}\n"


class Accepted(suite.Case):
    def servers(self, corefile, *arguments, **kwargs):
        result = validate(corefile, "-json", *arguments, **kwargs)
        self.assertEqual((result.returncode, result.stderr if isinstance(corefile, str) else ""), (0, ""), result.stderr)
        return json.loads(result.stdout)["servers"]

    def forward(self, text, **kwargs):
        return self.servers(f". {{\n {text}\n}}\n", **kwargs)[0]["forward"]

    def test_json_with_all_defaults(self):
        servers = self.servers(block(".", " bind 127.0.0.1\n forward . 9.9.9.9\n"), "-dns.port", "1053")
        stanza = servers[0]["forward"][0]
        for option in [option for option in stanza if option in OURS]:
            del stanza[option]
        self.assertEqual(
            servers,
            [
                {
                    "zones": ["."],
                    "listen": ["127.0.0.1:1053"],
                    "forward": [
                        {
                            "from": ".",
                            "to": [{"addr": "9.9.9.9:53", "transport": "dns", "tls_servername": ""}],
                            "except": [],
                            "force_tcp": False,
                            "prefer_udp": False,
                            "next_on_nodata": False,
                            "failfast_all_unhealthy_upstreams": False,
                            "expire": "10s",
                            "max_age": "0s",
                            "read_timeout": "2s",
                            "max_idle_conns": 0,
                            "max_fails": 2,
                            "max_concurrent": 0,
                            "max_connect_attempts": None,
                            "health_check": {"interval": "500ms", "no_rec": False, "domain": "."},
                            "policy": "random",
                            "next": [],
                            "failover": [],
                            "tls": None,
                            "tls_servername": "",
                            "doh_method": "POST",
                            "source_address": None,
                            "resolver": [],
                        }
                    ],
                }
            ],
        )

    def test_keys_and_listen(self):
        for corefile, zones, listen in [
            (block("."), ["."], [":53"]),
            (block("dns://Example.ORG:1053"), ["example.org."], [":1053"]),
            (block("a.org, b.org:54"), ["a.org.", "b.org."], [":53", ":54"]),
            (block("a.org b.org c.org:53"), ["a.org.", "b.org.", "c.org."], [":53"]),
            (block("a.org,\nb.org"), ["a.org.", "b.org."], [":53"]),
            (block("10.9.3.0/24"), ["3.9.10.in-addr.arpa."], [":53"]),
            (block("10.0.0.0/31:55"), ["0.0.0.10.in-addr.arpa.", "1.0.0.10.in-addr.arpa."], [":55"]),
            (block("2003::1/64"), ["0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.2.ip6.arpa."], [":53"]),
            (block(".", " bind 127.0.0.1 ::1\n" + FORWARD), ["."], ["127.0.0.1:53", "[::1]:53"]),
            (block(".", " bind 127.0.0.1\n bind 127.0.0.2\n" + FORWARD), ["."], ["127.0.0.1:53", "127.0.0.2:53"]),
            (block("a:1 b:2", " bind 127.0.0.1\n" + FORWARD), ["a.", "b."], ["127.0.0.1:1", "127.0.0.1:2"]),
        ]:
            server = self.servers(corefile)[0]
            self.assertEqual((server["zones"], server["listen"]), (zones, listen), corefile)

    def test_bind_by_interface(self):
        listen = self.servers(block(".", " bind lo {\n except 127.0.0.1\n }\n" + FORWARD))[0]["listen"]
        self.assertNotIn("127.0.0.1:53", listen)
        self.assertIn("127.0.0.1:53", self.servers(block(".", " bind lo\n" + FORWARD))[0]["listen"])

    def test_servers_in_file_order(self):
        servers = self.servers(block("b.org") + block("a.org") + block("c.org:53", " errors\n"))
        self.assertEqual([server["zones"] for server in servers], [["b.org."], ["a.org."], ["c.org."]])
        self.assertEqual(servers[2]["forward"], [])

    def test_case_01_byte_order_mark(self):
        self.servers(b"\xef\xbb\xbf" + block(".").encode())

    def test_case_02_carriage_return(self):
        self.assertEqual(len(self.servers(block(".").replace("\n", "\r\n").encode())), 1)

    def test_case_03_comments(self):
        to = self.forward("forward . 127.0.0.1#8.8.8.8 9.9.9.9 # the rest\n # a line")[0]["to"]
        self.assertEqual([t["addr"] for t in to], ["127.0.0.1:53", "9.9.9.9:53"])

    def test_case_04_quotes(self):
        self.assertEqual(self.forward('"forward" "." "127.0.0.1"')[0]["from"], ".")

    def test_case_06_line_of_an_import(self):
        stanza = self.servers("(s) {\n except b.org\n}\n" + block(".", " forward . 127.0.0.1 {\n import s\n import s\n }\n"))
        self.assertEqual(stanza[0]["forward"][0]["except"], ["b.org.", "except.", "b.org."])

    def test_case_09_environment(self):
        env = {"FWD_TEST_TO": "127.0.0.9", "FWD_TEST_ZONE": "z.test"}
        servers = self.servers(block("{$FWD_TEST_ZONE}", " forward . {%FWD_TEST_TO%}\n"), env=env)
        self.assertEqual(servers[0]["zones"], ["z.test."])
        self.assertEqual(servers[0]["forward"][0]["to"][0]["addr"], "127.0.0.9:53")

    def test_case_40_stanzas_chain(self):
        self.assertEqual(
            [s["from"] for s in self.forward("forward a.org 127.0.0.1\n forward . 127.0.0.2")], ["a.org.", "."]
        )

    def test_same_zone_on_other_addresses(self):
        first = block(".:1053", " bind 127.0.0.1\n" + FORWARD)
        second = block(".:1053", " bind 127.0.0.2\n" + FORWARD)
        self.assertEqual(len(self.servers(first + second)), 2)

    def test_opens_no_socket(self):
        """A port that others hold does not matter."""
        self.servers(block(".:1", " bind 192.0.2.1\n" + FORWARD))


class Import(suite.Case):
    def test_case_11_files(self):
        with tempfile.TemporaryDirectory() as directory:
            paths = {"b.conf": block("b.org"), "a.conf": block("a.org"), ".c.conf": block("c.org")}
            paths["Corefile"] = "import *.conf\n" + block("d.org")
            for name, text in paths.items():
                with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                    file.write(text)
            result = subprocess.run(
                [RESOLVER, "-validate", "-json"], cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
            self.assertEqual(result.returncode, 0, result.stderr)
            zones = [server["zones"][0] for server in json.loads(result.stdout)["servers"]]
            self.assertEqual(zones, ["c.org.", "a.org.", "b.org.", "d.org."])


class Refused(suite.Case):
    """Every error is on stderr, in CoreDNS's words, with exit status 1."""

    errors = {
        ". {\n cach\n}\n": "/dev/stdin:2 - Error during parsing: Unknown directive 'cach'",
        ". {\n errors\n}\n. {\n forward . 1.1.1.1 {\n": "/dev/stdin:5 - Error during parsing: Unexpected EOF",
        block(".:99999"): "address 99999: invalid port",
        block(".:-1"): "address -1: invalid port",
        block(".:1053") * 2: "cannot serve dns://.:1053 - it is already defined",
        block("a.org:1 A.ORG.:1"): "cannot serve dns://a.org.:1 - it is already defined",
        block(".:1053", " bind 127.0.0.1\n" + FORWARD) + block(".:1053"):
            "cannot serve dns://.:1053 - zone overlap listener capacity with dns://.:1053 on 127.0.0.1",
        block(".:1053") + block(".:1053", " bind 127.0.0.1\n" + FORWARD):
            "cannot serve dns://.:1053 on 127.0.0.1 - zone overlap listener capacity with dns://.:1053",
        block("a..b"): "error inspecting server blocks: zone is not a valid domain name: a..b",
        block(".", " bind\n"): "plugin/bind: at least one address or interface name is expected",
        block(".", " bind nosuchif\n"): 'plugin/bind: not a valid IP address or interface name: "nosuchif"',
        block(".", " bind 127.0.0.1 {\n only\n }\n"): 'plugin/bind: invalid option "only"',
        block(".", " bind 127.0.0.1 {\n except\n }\n"):
            "plugin/bind: at least one address or interface must be given to except subdirective",
        block(".", " root\n"):
            "plugin/root: /dev/stdin:2 - Error during parsing: Wrong argument count or unexpected line ending after 'root'",
        block(".", " errors\n errors\n"): "plugin/errors: this plugin can only be used once per Server Block",
        block(".", " errors a b\n"):
            "plugin/errors: /dev/stdin:2 - Error during parsing: Wrong argument count or unexpected line ending after 'b'",
        block(".", " errors file\n"): "plugin/errors: /dev/stdin:2 - Error during parsing: invalid log file: file",
        block(".", " errors {\n foo\n }\n"):
            "plugin/errors: /dev/stdin:3 - Syntax error: Unexpected token 'foo', expecting 'Unknown field foo'",
        block(".", " log {\n class foo\n }\n"): "plugin/log: invalid Class: foo",
        block(".", " log {\n class\n }\n"):
            "plugin/log: /dev/stdin:3 - Error during parsing: Wrong argument count or unexpected line ending after 'class'",
        block(".", " log {\n foo\n }\n"): "plugin/log: /dev/stdin:3 - Error during parsing: unknown property 'foo'",
        block(".", " forward\n"):
            "plugin/forward: /dev/stdin:2 - Error during parsing: Wrong argument count or unexpected line ending after 'forward'",
        # The order of errors (case 8): unknown directives, keys, directives in CoreDNS's order, overlap.
        ". {\n cach\n}\n. {\n errors\n": "/dev/stdin:2 - Error during parsing: Unknown directive 'cach'",
        block("a..b", " cach\n"): "/dev/stdin:2 - Error during parsing: Unknown directive 'cach'",
        block(".", " forward\n errors a b\n"):
            "plugin/errors: /dev/stdin:3 - Error during parsing: Wrong argument count or unexpected line ending after 'b'",
        block(".", " forward\n") + block(".", " bind\n"):
            "plugin/bind: at least one address or interface name is expected",
        block(".:1") * 2 + block(".:99999"): "address 99999: invalid port",
    }

    def test_case_14_warning_of_a_network(self):
        """It is printed whatever becomes of the rest of the stanza."""
        warning = (
            "[WARNING] plugin/forward: Unsupported CIDR notation: '10.0.0.0/15' expands to multiple zones."
            " Using only '0.10.in-addr.arpa.'.\n"
        )
        for option, status, error in (
            ("expire 5s", 0, ""), ("expire 5", 1, 'plugin/forward: time: missing unit in duration "5"\n'),
        ):
            result = validate(block(".", f" forward 10.0.0.0/15 127.0.0.1 {{\n {option}\n }}\n"))
            self.assertEqual((result.returncode, result.stderr), (status, warning + error))

    def test_case_08_and_13_errors(self):
        for corefile, error in self.errors.items():
            result = validate(corefile)
            self.assertEqual((result.returncode, result.stdout, result.stderr), (1, "", error + "\n"), corefile)

    def test_case_13_order_over_server_blocks(self):
        """Each step goes over all blocks before the next one: the names of directives, syntax, keys, then directive by directive, with
        the warnings of what has been done by then."""
        steps = [
            (block("b", " whatever\n" + FORWARD), "Unknown directive 'whatever'"),
            ("tls://b {\n errors\n}\n", "cannot serve tls://b."),
            (block("b", " root /none\n bind nosuch\n"), 'plugin/bind: not a valid IP address or interface name: "nosuch"'),
            (block("b", " errors x y\n"), "plugin/errors: "),
            (block("b", " forward . 127.0.0.1 {\n  bogus\n }\n"), "plugin/forward: "),
        ]
        for i, (_, error) in enumerate(steps):
            for texts in (steps[i:], steps[i:][::-1]):
                result = validate("".join(text for text, _ in texts))
                lines = result.stderr.splitlines()
                self.assertEqual(result.returncode, 1)
                self.assertIn(error, lines[-1])
                warned = ["[WARNING] plugin/root: Root path does not exist: /none"] if i == 2 else []
                self.assertEqual(lines[:-1], warned)

    def test_directive_of_coredns_names_the_way_to_have_it(self):
        result = validate(block(".", " cache 30\n" + FORWARD))
        self.assertEqual(result.returncode, 1)
        first, second = result.stderr.splitlines()
        self.assertEqual(first, "/dev/stdin:2 - Error during parsing: Unknown directive 'cache'")
        self.assertIn("CoreDNS", second)

    def test_transport_that_is_not_served_is_named(self):
        result = validate(block("tls://example.org"))
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot serve tls://example.org.", result.stderr)

    def test_second_line_of_a_directive_keeps_the_address_of_the_first(self):
        result = validate(".:0 {\nhealth 127.0.0.1:8099\nhealth {\nlameduck 1s\n}\nhealth\n}\n")
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_no_server_block(self):
        for corefile in ("", "# nothing\n", "(s) {\n errors\n}\n"):
            result = validate(corefile)
            self.assertEqual((result.returncode, result.stderr), (1, "/dev/stdin: no server block, nothing to serve\n"))

    def test_missing_corefile(self):
        with tempfile.TemporaryDirectory() as directory:
            for arguments, error in {
                (): "loading Caddyfile via default: open Corefile: no such file or directory\n",
                ("-conf", "./x"): "loading Caddyfile via flag: open ./x: no such file or directory\n",
            }.items():
                result = subprocess.run(
                    [RESOLVER, "-validate", *arguments],
                    cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False,
                )
                self.assertEqual((result.returncode, result.stderr), (1, error))

    def test_port_that_is_none(self):
        result = validate(block("."), "-dns.port=abc")
        self.assertEqual((result.returncode, result.stderr), (1, "lookup tcp/abc: unknown port\n"))


class Flags(suite.Case):
    def flags(self, *arguments):
        return subprocess.run([RESOLVER, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)

    def test_version(self):
        for flag in ("-version", "--version", "-version=true", "--version=1"):
            result = self.flags(flag)
            self.assertEqual(result.returncode, 0)
            self.assertRegex(result.stdout, r"^fwd-resolver-\d+\.\d+\.\d+\nlinux/")

    def test_errors_are_those_of_go(self):
        for arguments, status, error in [
            (["-x"], 2, "flag provided but not defined: -x\nUsage of "),
            (["--x=1"], 2, "flag provided but not defined: -x\n"),
            (["-conf"], 2, "flag needs an argument: -conf\nUsage of "),
            (["-quiet=maybe"], 2, 'invalid boolean value "maybe" for -quiet: parse error\nUsage of '),
            (["---quiet"], 2, "bad flag syntax: ---quiet\n"),
            (["-=1"], 2, "bad flag syntax: -=1\n"),
            (["-workers", "0"], 2, 'invalid value "0" for flag -workers: parse error\nUsage of '),
            (["-workers=-1"], 2, 'invalid value "-1" for flag -workers: parse error\nUsage of '),
            (["-help"], 0, "Usage of "),
            (["a", "b"], 1, "extra command line arguments: [a b]\n"),
            (["-quiet", "--", "c"], 1, "extra command line arguments: [c]\n"),
        ]:
            result = self.flags(*arguments)
            self.assertEqual(result.returncode, status, arguments)
            self.assertTrue(result.stderr.startswith(error), (arguments, result.stderr))


class Examples(suite.Case):
    def test_every_corefile_of_the_examples(self):
        root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "corefiles")
        paths = sorted(glob.glob(os.path.join(root, "*.Corefile")))
        self.assertGreaterEqual(len(paths), 6)
        for path in paths:
            result = subprocess.run(
                [RESOLVER, "-validate", "-conf", path],
                capture_output=True, text=True, timeout=PATIENCE, check=False, env={**os.environ, "PORT": "1053"},
            )
            self.assertEqual((result.returncode, result.stderr), (0, ""), path)


if __name__ == "__main__":
    suite.run()
