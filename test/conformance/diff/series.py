"""What /metrics tells of forwarding, in a form in which two servers' can be compared.

Compared are names, labels, types, help texts, bounds of buckets and counts. Not compared are values that depend on time (TIMED), and how many of the
uses of connections were hits of the pool: that is a matter of timing in CoreDNS and of `port_budget` in ours, so hits and misses count together.
"""

import re
import urllib.request

PREFIX = re.compile(r"coredns_(forward|proxy)_")
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TOGETHER = re.compile(r"conn_cache_(hits|misses)_total")
UNASSIGNED = re.compile(r"2[4-9]|[3-9]\d|\d{3,}")
TIMED = {
    "coredns_proxy_request_duration_seconds_sum",
    "coredns_proxy_healthcheck_failures_total",  # probes go on between queries
    "coredns_forward_healthcheck_broken_total",
}


def scrape(address, upstreams):
    """{"families": name -> [type, help], "samples": (name, labels) -> value, "bounds": (name, labels) -> buckets}. `to` is an upstream's name by its
    address."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as reply:
        text = reply.read().decode()
    page = {"families": {}, "samples": {}, "bounds": {}}
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            if PREFIX.match(name):
                page["families"].setdefault(name, {})[word] = rest
        elif PREFIX.match(line):
            name, labels, value = SAMPLE.match(line).groups()
            labels = dict(LABEL.findall(labels or ""))
            if UNASSIGNED.match(labels.get("rcode", "")):  # Better by default: coredns_proxy_request_duration_seconds, label rcode
                labels["rcode"] = "other"
            labels["to"] = upstreams.get(labels.get("to"), labels.get("to"))
            bound = labels.pop("le", None)
            key = TOGETHER.sub("conn_cache_hits_and_misses", name), tuple(sorted((k, v) for k, v in labels.items() if v is not None))
            if bound:
                page["bounds"].setdefault(key, []).append(bound)
            else:
                page["samples"][key] = page["samples"].get(key, 0) + float(value)
    return page


def growth(before, after):
    """What came in between: the samples that are new or have another value, by how much, and the bounds of new buckets; and all families."""
    grown = {}
    for key, value in after["samples"].items():
        if key not in before["samples"] or value != before["samples"][key]:
            grown[key] = "timed" if key[0] in TIMED else value - before["samples"].get(key, 0)
    for key, bounds in after["bounds"].items():
        if key not in before["bounds"]:
            grown[key] = bounds
    grown.update(after["families"])
    return grown


def differences(configuration, theirs, ours):
    """Lines about what differs."""
    return [f"{key}: {theirs.get(key)} / {ours.get(key)}" for key in sorted({**theirs, **ours}, key=str)
            if theirs.get(key) != ours.get(key) and not allowed(configuration, key, theirs.get(key), ours.get(key))]


def allowed(configuration, key, theirs, ours):
    """Better by default: a reused TCP connection that turns out dead (49, 78). Ours is often known to be dead before it is used."""
    return configuration.name == "broken streams, pool" and "hits_and_misses" in key[0] and ours < theirs
