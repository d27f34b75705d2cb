"""Random Corefiles from a seed: valid, borderline and broken ones, made from a grammar or from existing files by mutation.

Random(seed, scratch, corpus, resolver_port).next() gives one after the other, as (kind, octets). The files that they name lie in the
scratch directory, which write_scratch fills; the environment that they use is ENVIRONMENT.
"""

import os
import random
import subprocess

ENVIRONMENT = {
    "E_ADDR": "192.0.2.7",
    "E_TWO": "192.0.2.8\n192.0.2.9",
    "E_NEST": "x{$E_ADDR}y",
    "E_BRACE": "{",
    "E_OPEN": "} {",
    "E_DIRECTIVE": "forward",
    "E_IMPORT": "import",
    "E_PORT": "5353",
    "E_HASH": "a # b",
    "E_SPACE": "a b",
    "E_UTF8": "\u00e9\u3000",
    "E_PERCENT": "{%E_ADDR%}",
}

FILES = {
    "servers.conf": "nameserver 10.0.0.1\nnameserver 10.0.0.2 # x\nsearch a b\noptions ndots:3\nnameserver\n"
    "nameserver 1.1.1.1:5353\nnameserver ::1\nnameserver 1.1.1.1#c\n nameserver 10.0.0.3\nnameserver\t10.0.0.4\r\n",
    "empty.conf": "# nothing\n",
    "many.conf": "".join(f"nameserver 10.1.0.{i}\n" for i in range(20)),
    "long.conf": "nameserver 10.0.0.1\n# " + "x" * 70000 + "\nnameserver 10.0.0.2\n",
    "one": "forward . 198.51.100.8\nlog\n",
    "options": "except z.org\n",
    "broken": "forward . 198.51.100.8 {\n",
    "block": "imported.test {\n  forward . 198.51.100.9\n}\n",
    "nested": "import one\n",
    "garbage.pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "other.pem": "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n",
    "crlf": "forward . 198.51.100.8 {\r\n  max_fails 3\r\n}\r\n",
}

INTEGERS = """0 1 5 -1 +5 -0 +0 007 4294967295 4294967296 9223372036854775807 9223372036854775808 -9223372036854775808
    -9223372036854775809 18446744073709551616 99999999999999999999x 1e3 0x10 0b1 1_0 a 1.5 -4 - + \u0663 "" "2 3" 1\\n --1
    00000000000000000000001 2147483648 1\u00a02""".split()
DURATIONS = """0 0s 5s 10s 1m 1h2m3s .5s 1.5h 1\u00b5s 1\u03bcs 100ns 1us -1s +1s 1d 10 s 1.s -.5s 1.0000000001s 9223372036854775807ns
    9223372036854775808ns -9223372036854775808ns 2562047h47m16.854775807s 2562047h47m16.854775808s 2562048h 1h1 1s1 1ss "" "1\\"" 1\u00e9
    3000000h 0.1ns .s ..5s 1.2.3s 500ms 20s 1ms 99999999999999999999s 0.00000000000000000000000001h 1m60s -0 +0 + - 9.999s 1h0m0s
    0.9999999999999999999s 1S 1MS 01s 1_000s 1e3s 0x1s 1s-1s 5m30s100ms7\u00b5s3ns 11s 9s 153722867m 999999999999999ms
    1.9223372036854775808h 2540400h10m10.000000000s""".split() + ['"1 s"']
NAMES = ["." , "a.org", "A.Org.", "example.org", "b..c", "10.0.0.0/8", "10.9.3.0/18", "10.0.0.0/15", "10.1.2.3/33", "2001:db8::/31",
    "2001:db8::/32", "::/0", "0::/8", "10.0.0.0/0", "0.0.0.0/0", "10.0.0.0/08", "255.0.0.0/7", "a:-1", "a:+1", "a:1", "a:", "dns://a",
    "tls://a.org:853", "grpc://b", "foo://x", "a\\.b", "a\\", "\\097.org", "xn--p.x", "x" * 63, "x" * 64, ".".join(["y" * 60] * 4), "a_b",
    "*.org", "192.168.1.1/23", "fe80::1/64", "1.2.3.4/24:53", "[::1]:53", "(x)", "a/b", "10.0.0.0/+8", "http://x", "https3://z",
    "quic://q", "unix://u", "a:99999", "::", "1::/3", "e000::/3", "2000::/0", '""', "a,", "b,c", ".a", "b\u00fccher.de", "a\\.", "\\",
    "a.b.c.d:09", "::ffff:1.2.3.0/120", "0:0:0:0:0:ffff:1.2.3.4/120", "127.0.0.1", "10.0.0.0/33", "a%b", "10.0.0.0/24.", "10.0/16",
    "2001:db8::/29", "2001:db8::/128", "1.2.3.4/32", "1.2.3.4/31", "10.1.2.3/9", "a b".replace(" ", "\\032"), "\u0236", "..", "a.",
    "CLUSTER.local", "in-addr.arpa", "ip6.arpa", "\u212a.org", "\u0130.org", "\u00c9.org", "x" * 250 + ".org", "x." * 127 + "y",
    "a:9223372036854775808", "a:00053", "-", "_tcp.a", "\\300.a", "\\25", "\\0000", '"a b"', '"a\\"b"', "2001:DB8::/32", "a\\\u00e9"]
TARGETS = ["192.0.2.1", "192.0.2.2", "192.0.2.1:53", "198.51.100.9:5353", "tls://192.0.2.1", "tls://192.0.2.1:8853",
    "https://192.0.2.1", "https://192.0.2.1:443", "tls://9.9.9.9%dns.quad9.net", "tls://9.9.9.9%dns.quad9.net:853", "[::1]:53", "::1",
    "@servers.conf", "[2001:db8::1]:5353", "dns://192.0.2.1", "2001:db8::1",
    "https://192.0.2.1/dns-query", "tls://[::1%a.org]:853", "tls://::1%a.org:853", "tls://::1%a.org", "[::1]", "0::1", "::1:53", "[::1",
    "]::1[", "[127.0.0.1]:53", "127.1", "1.2.3", "256.1.1.1", "01.1.1.1", "/no/file", "@empty.conf", "@", "@many.conf", "@long.conf",
    "tls://@servers.conf", "quic://@servers.conf", "quic://1.1.1.1", "quic://1.1.1.1:53", "grpc://1.1.1.1", "unix:///x", "unix://",
    "http://1.1.1.1", "DNS://1.1.1.1", "dns://", '""', "1.1.1.1%x", "1.1.1.1%x:53", "[::1]%a", "::1%a", "[::1%a]", "a..b", "-a.org",
    "1.1.1.1:99999", "1.1.1.1:abc", "1.1.1.1:", "[]", "[]:53", ":53", "::", "a:b:c", "{", "x" * 64 + ".a", "://1.1.1.1", "://a%b",
    "https3://1.1.1.1:1", "https3://1.1.1.1", "1.1.1.1#8.8.8.8", "\u00e9.org", "a.b:c:d", "tls://1.1.1.1%", "%a", "tls://[1.1.1.1%a]:5",
    "[a..org]:53", "::ffff:1.2.3.4", "tls://a..org%b:c:9", "10.0.0.%d", "1.1.1.1/24", "quic://[::1]", "[[::1]]:53", "[::1]]:53",
    "[::1]:53:53", "1.1.1.1::53", "tls://", "https://", "https:///", "https://[::1]:443", "tls://tls://1.1.1.1", "1.1.1.1,1.1.1.2",
    "@servers.conf:53", "1.1.1.1:-1", "1.1.1.1: ", "0.0.0.0", "255.255.255.255", "1.1.1.1.", "::1%lo%x", "[::1%lo%x]:53", "0x7f.1",
    "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1::2::3", ":::", "::1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "::1.2.3", "::00001", "::1%", "[::]:53"]
HOST_NAMES = ["a.up.test", "b.up.test", "v6.up.test", "none.up.test", "empty.up.test", "cname.up.test", "tls://a.up.test",
    "https://b.up.test:8443", "a.up.test:54", "tls://a.up.test%x.y", "a.up.test%x", "A.UP.test.", "tls://[a.up.test]:854",
    "a_b.up.test", "two.up.test", "xn--a.up.test"]
RCODES = """NXDOMAIN nxdomain SERVFAIL NOERROR noerror REFUSED NOTIMPL NOTIMP BADVERS BADSIG FOO YXRRSet DSOTYPENI BADCOOKIE 3 FORMERR
    BADKEY BADTIME BADMODE BADNAME BADALG BADTRUNC NXRRSET NOTAUTH NOTZONE YXDOMAIN STATEFULNOTIMPL SERVFA\u0130L noError "" """.split()
PIECES = list("{}\"#\\\n\r \t,%$:/().[]-_0a@") + ["\u00a0", "\u2003", "\u0085", "\u00e9", "import", " { ", " }\n", "\\\"", "\ufeff", "\n\n",
    "{$E_ADDR}", "{$E_TWO}", "{%E_ADDR%}", "{$", "{%", "}}", "forward", "# x\n", "\x00", "\x0b", "\u2028", "\ud800"]


def write_scratch(scratch):
    """Fills the directory; returns nothing. Certificates are made with openssl(1); without it their files are missing for both sides."""
    for name, text in FILES.items():
        with open(os.path.join(scratch, name), "w", encoding="utf-8", newline="") as file:
            file.write(text)
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
             "-subj", "/CN=test", "-keyout", os.path.join(scratch, "key.pem"), "-out", os.path.join(scratch, "cert.pem")],
            check=True, capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pass


class Random:
    def __init__(self, seed, scratch, corpus, resolver_port):
        self.random = random.Random(seed)
        self.scratch = scratch
        self.corpus = corpus
        self.resolvers = [f"127.0.0.1:{resolver_port}"] * 6 + ["127.0.0.1:1", "[::1]:1", "::1", "[::1]", "a.b", "1.1.1.1:53:53", '""', "1.1.1"]

    # --- pieces ---

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, pool):
        return self.random.choice(pool)

    def some(self, pool, low=0, high=3):
        return " ".join(self.pick(pool) for _ in range(self.random.randint(low, high)))

    def target(self):
        kind = self.random.random()
        text = self.pick(TARGETS[:16]) if kind < 0.6 else self.pick(HOST_NAMES) if kind < 0.64 else self.pick(TARGETS)
        return text.replace("@", self.scratch + "/") if "@" in text else text

    def name(self):
        return self.pick(NAMES[:4]) if self.chance(0.5) else self.pick(NAMES)

    def good_option(self):
        return self.pick(["except a.org 10.0.0.0/15", "max_fails 3", "health_check 1s no_rec", "health_check 2s domain x.y", "force_tcp",
            "prefer_udp", "tls", "tls_servername a.b", "expire 20s", "max_age 30s", "max_idle_conns 5", "read_timeout 100ms",
            "policy round_robin", "policy sequential", "max_concurrent 100", "next nxdomain", "failover servfail refused",
            f"resolver {self.resolvers[0]}", "source_address 127.0.0.1", "max_connect_attempts 0", "next_on_nodata",
            "failfast_all_unhealthy_upstreams", "doh_method GET", "# nothing", ""])

    def option(self):
        """An option whose arguments may be too few, too many, or wrong."""
        name, values, low, high = self.pick([
            ("except", NAMES, 0, 3), ("max_fails", INTEGERS, 0, 2), ("max_connect_attempts", INTEGERS, 0, 2),
            ("health_check", DURATIONS, 0, 1), ("force_tcp", ["x", "{", "}", '""'], 0, 1), ("prefer_udp", ["x", "{"], 0, 1),
            ("tls", ["@cert.pem", "@key.pem", "@none.pem", "@garbage.pem", "@other.pem", "cert.pem", "key.pem", "@empty.conf", "@"], 0, 4),
            ("tls_servername", ["a.org", "b", '""', "a..b"], 0, 2), ("expire", DURATIONS, 0, 2), ("max_age", DURATIONS, 0, 2),
            ("max_idle_conns", INTEGERS, 0, 2), ("read_timeout", DURATIONS, 0, 2), ("doh_method", ["GET", "POST", "get", "PUT", '""'], 0, 2),
            ("policy", ["random", "round_robin", "sequential", "Random", "x", '""'], 0, 2), ("max_concurrent", INTEGERS, 0, 2),
            ("next", RCODES, 0, 3), ("next_on_nodata", ["x", "{"], 0, 1), ("failfast_all_unhealthy_upstreams", ["x", "{", "}"], 0, 1),
            ("failover", RCODES, 0, 3), ("resolver", self.resolvers, 0, 3),
            ("source_address", ["127.0.0.1", "::1", "::ffff:1.2.3.4", "a", "1.1.1.1:53", "fe80::1%lo", "2001:DB8::0:1", "01.2.3.4", '""',
                "::ffff:7f00:1", "1.2.3.4.5", "0:0:0:0:0:0:0:0"], 0, 2),
            ("import", ["@options", "options", "opt*", "@nope", "nope*", "snip", '""', "./options", "../*/options", "opt?ons"], 0, 2),
            ("", ["foo", "expier 5s", "FORCE_TCP", "{$E_ADDR}", "{$E_BRACE}", "}", "{", '"force_tcp"', "{$E_OPEN}", "port_budgets 5"], 1, 2)])
        text = " ".join([name, self.some(values, low, high)])
        if name == "health_check" and self.chance(0.6):
            text += " " + self.some(["no_rec", "domain", "rec", "a.b", "a..b", ".", "x", "domain a.b", "domain foo.", "domain \\255.x"], 1, 4)
        return text.replace("@", self.scratch + "/") if "@" in text else text

    def stanza(self, faulty=0.5):
        count = self.random.randint(1, 3) if self.chance(0.9) else self.pick([0, 14, 15, 16, 20])
        text = f"forward {self.pick(['.', '.', '.', self.name()])} " + " ".join(self.target() for _ in range(count))
        if self.chance(0.75):
            text += " {\n"
            for _ in range(self.random.randint(0, 4)):
                text += "    " + (self.option() if self.chance(faulty) else self.good_option()) + "\n"
            text += "  }" + self.pick(["\n"] * 14 + [" . a.org 8.8.8.8\n", " x\n", ""])
        return text + "\n"

    # --- kinds of Corefile ---

    def one_option(self):
        """One stanza that is right but for, perhaps, one or two lines."""
        targets = self.pick(["192.0.2.1"] * 3 + [" ".join(self.target() for _ in range(self.random.randint(1, 3)))])
        lines = [self.option() if self.chance(0.7) else self.good_option() for _ in range(self.random.randint(1, 2))]
        return f". {{\n  forward {self.pick(['.', '.', self.name()])} {targets} {{\n" + "".join(f"    {line}\n" for line in lines) + "  }\n}\n"

    def directive(self):
        root = self.scratch + "/"
        return self.pick(["log\n", "errors\n", "import snip\n", f"import {root}one\n", "import one\n", "import other\n", "import on[e]\n",
            "import nope\n", "import nope*\n", "import on?\n", "import a b\n", "import\n", "bind 127.0.0.1\n", "bind {$E_ADDR}\n",
            "bind lo\n", "bind 127.0.0.1 ::1\n", "bind nonesuch\n", "bind\n", "bind 127.0.0.1 {\n except 127.0.0.1\n}\n", "bind lo {\n except ::1\n}\n",
            "bind ::1 {\n foo\n}\n", "bind 1.2.3.4.5\n", "bind 127.0.0.1 127.0.0.1\n", "{$E_DIRECTIVE} . 192.0.2.1\n", "forward . {$E_ADDR}\n",
            "forward . {$E_TWO} 192.0.2.2\n  192.0.2.3\n", "forward . {$UNSET}\n", "forward . a{%E_NEST%}b\n", "forward . {$E_SPACE}\n",
            "forward . {$E_PERCENT}\n", "forward . {$E_HASH}\n", "forward . {$E_BRACE}\n max_fails 1\n}\n", "root \"a\nb\" c\n", f"root {root}\n",
            "root\n", "root a b\n", "root /no/such\n", "root {\n}\n", f"import {root}\n", f"import {root}broken\n", "import on*\n", "import nested\n", "import crlf\n",
            "import [\n", "import ]\n", "import \"\"\n", "forward . \"192.0.2.1\"192.0.2.2\n", "{\n", "}\n", "import ./one\n", "import on\\e\n",
            "log . \"{remote}\"\n", "log . {\n class error\n}\n", "log {\n class foo\n}\n", "log a.org b.org {combined}\n", "log . {\n class\n}\n",
            "log {\n foo\n}\n", "log example.org {common} {\n class denial success\n}\n", "errors {\n consolidate 5m \".*\" \n}\n", "errors {\n foo\n}\n",
            "errors stderr\n", "errors stdout\n", "errors {\n consolidate 5m \"[\"\n}\n", "errors {\n consolidate x \".*\"\n}\n", "errors {\n stacktrace\n}\n",
            "health\n", "health :8080\n", "health localhost:8091\n", "health a b\n", "health {\n lameduck 5s\n}\n", "health {\n lameduck x\n}\n",
            "health {\n foo\n}\n", "health {\n lameduck\n}\n", "health {\n lameduck 5s 6s\n}\n", "health 8080\n", "health :\n", "health :x {\n lameduck -1s\n}\n",
            "ready\n", "ready :8181\n", "ready x\n", "ready x:y:z\n", "ready 1 2\n", "ready {\n foo\n}\n", "ready :8181 {\n monitor continuously\n}\n", "ready\nready\n",
            "prometheus\n", "prometheus :9253\n", "prometheus a b\n", "prometheus x\n", "prometheus {\n foo\n}\n", "prometheus localhost:9253 {\n}\n",
            "reload\n", "reload 10s\n", "reload 1s\n", "reload 10s 5s\n", "reload x\n", "reload 0\n", "reload 10s 20s\n", "reload 10s 1s 1s\n", "reload 10s x\n", "reload 3s 1s\n",
            "reload -5s\n", "reload\nreload\n", "reload {\n}\n", "reload 10s 5s {\n", "health\nhealth\n", "prometheus\nprometheus :9253\n",
            "errors {\n consolidate 5m \"^a$\" warning\n}\n", "errors {\n consolidate 0s \"a\" foo\n}\n", "errors {\n consolidate\n}\n", "errors\nerrors\n", "foo\n", "cache 30\n", "FORWARD . 192.0.2.1\n", "\"forward\" . 192.0.2.1\n"])

    def keys(self):
        if self.chance(0.15):
            return self.pick(["(snip)", "(other)", "a.org, b.org", "a.org,", "a.org,\nb.org", "import snip", f"import {self.scratch}/block", "()",
                "(snip) x", "", "{$E_ADDR}", "{%E_PERCENT%}", "{$UNSET}", "{$}", "{$E_NEST}", "{$E_IMPORT} snip", "{$E_BRACE}", "a:{$E_PORT}",
                "tls://a.org", "https://b.org", "{$E_SPACE}", "{$E_TWO}", "a.org ,b.org", "10.0.0.0/15:53", "10.0.0.0/15", ".:70000", ".:x", ".:-1",
                "a.org a.org", "A.org a.org:53", "dns://.:0", ".:+5", "import nope", "quic://.", "x\u00a0y"])
        return " ".join(self.pick([".", ".:53", "example.org", ".:5300", "a.org:5300", self.name()]) for _ in range(self.pick([1, 1, 1, 2, 3])))

    def block(self):
        text = self.keys() + self.pick([" {\n"] * 12 + ["\n{\n", "\n", " ", " { "])
        for _ in range(self.random.randint(0, 3)):
            text += "  " + (self.stanza(0.25) if self.chance(0.6) else self.directive())
        return text + self.pick(["}\n"] * 14 + ["", "} x\n", "} }\n"])

    def whole(self):
        """Snippets and several blocks, and an odd character now and then."""
        text = ""
        if self.chance(0.4):
            text += f"(snip) {{\n  {self.pick(['log', 'forward . 198.51.100.7', 'except q.org', 'import other', 'import snip', ''])}\n}}\n"
        if self.chance(0.2):
            text += f"(other) {{\n  {self.pick(['errors', 'forward . 198.51.100.7 {', 'import snip', ''])}\n}}\n"
        for _ in range(self.pick([1, 1, 1, 2, 3])):
            text += self.block()
        return self.mutate(text) if self.chance(0.2) else text

    def mutate(self, text):
        """Replaces, drops, doubles and inserts characters, words and lines."""
        for _ in range(self.random.randint(1, 4)):
            way = self.random.random()
            at = self.random.randrange(len(text) + 1)
            if way < 0.25:
                text = text[:at] + self.pick(PIECES) + text[at:]
            elif way < 0.45:
                text = text[:at] + text[at + self.pick([1, 1, 1, 4, 16]) :]
            elif way < 0.55:
                text = text[:at] + self.pick(PIECES) + text[at + 1 :]
            else:
                lines = text.split("\n")
                row = self.random.randrange(len(lines))
                words = lines[row].split(" ")
                if way < 0.65:
                    lines.insert(row, self.pick(lines))
                elif way < 0.72:
                    del lines[row]
                elif way < 0.8:
                    lines.insert(row, self.pick([self.option(), self.good_option(), self.stanza(), self.directive()]))
                else:
                    column = self.random.randrange(len(words))
                    pool = self.pick([INTEGERS, DURATIONS, NAMES, TARGETS[:40], RCODES, PIECES, words])
                    words[column] = self.pick(pool).replace("@", self.scratch + "/")
                    lines[row] = " ".join(words)
                text = "\n".join(lines)
        return text

    def next(self):
        kind, make = self.random.choices(
            [("option", self.one_option), ("whole", self.whole), ("mutant", lambda: self.mutate(self.pick(self.corpus)))], [50, 30, 20])[0]
        text = make()
        data = text.encode("utf-8", "surrogatepass")
        if self.chance(0.01):
            data = b"\xef\xbb\xbf" + data
        if self.chance(0.01):
            data = data.replace(b"\n", b"\r\n")
        if self.chance(0.01):
            at = self.random.randrange(len(data) + 1)
            data = data[:at] + bytes([self.random.randrange(128, 256)]) + data[at:]
        return kind, data
