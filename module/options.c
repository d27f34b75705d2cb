/* The table of stanza options, in the order of the JSON configuration.
 *
 * Data only. The tests hold it against what stanza.c accepts and what config.c emits.
 */
#include "options.h"

#define DURATION_RANGE "0s or more, as Go writes durations: 500ms, 10s, 1m30s"
#define COUNT_RANGE "0 to 9223372036854775807"
#define UINT32_RANGE "0 to 4294967295"
#define COREDNS "CoreDNS"

const struct option_def option_defs[] = {
    {"from", "name", "\".\"", "a domain name, or a network in CIDR notation", "forward FROM TO...",
     "Base domain of the names that are forwarded.", COREDNS},
    {"to", "array", "[]", "1 to 15 arguments; files and host names may expand to more",
     "forward FROM TO...",
     "Upstreams: IP, IP:PORT, tls://IP, https://IP, a host name, or a file in resolv.conf form; as "
     "JSON {\"addr\": \"127.0.0.1:53\", \"transport\": \"dns\", \"tls_servername\": \"\"}.",
     COREDNS},
    {"except", "array", "[]", "domain names, or networks in CIDR notation", "except NAME...",
     "Domains below FROM that are not forwarded.", COREDNS},
    {"force_tcp", "boolean", "false", "true or false", "force_tcp",
     "Forward over TCP even if the query came over UDP.", COREDNS},
    {"prefer_udp", "boolean", "false", "true or false", "prefer_udp",
     "Forward over UDP even if the query came over TCP; a truncated answer is asked for again over "
     "TCP.",
     COREDNS},
    {"next_on_nodata", "boolean", "false", "true or false", "next_on_nodata",
     "Hand a query on to the next forward when the answer is NOERROR without records.", COREDNS},
    {"failfast_all_unhealthy_upstreams", "boolean", "false", "true or false",
     "failfast_all_unhealthy_upstreams",
     "Answer SERVFAIL at once when all upstreams are down, instead of trying one at random.",
     COREDNS},
    {"expire", "duration", "\"10s\"", DURATION_RANGE, "expire DURATION",
     "How long an idle connection is kept.", COREDNS},
    {"max_age", "duration", "\"0s\"", "0s for none, or expire and more", "max_age DURATION",
     "How old a connection may become, used or not.", COREDNS},
    {"read_timeout", "duration", "\"2s\"", "more than 0s", "read_timeout DURATION",
     "How long one attempt waits for an answer.", COREDNS},
    {"max_idle_conns", "integer", "0", COUNT_RANGE, "max_idle_conns N",
     "Most idle connections kept per upstream and type; 0 is unlimited.", COREDNS},
    {"max_fails", "integer", "2", UINT32_RANGE, "max_fails N",
     "An upstream is down after more failed probes than this; 0 never, and no probes.", COREDNS},
    {"max_concurrent", "integer", "0", COUNT_RANGE, "max_concurrent N",
     "Most queries in flight; those above get REFUSED; 0 is unlimited.", COREDNS},
    {"max_connect_attempts", "integer", "null", UINT32_RANGE ", or null", "max_connect_attempts N",
     "Most failed attempts per query; 0 is unlimited, null is twice the number of upstreams.",
     COREDNS},
    {"health_check", "object", "{\"interval\": \"500ms\", \"no_rec\": false, \"domain\": \".\"}",
     DURATION_RANGE, "health_check DURATION [no_rec] [domain FQDN]",
     "How often an upstream that failed is probed, without recursion desired, with which name.",
     COREDNS},
    {"policy", "string", "\"random\"", "random, round_robin, sequential",
     "policy random|round_robin|sequential", "In which order upstreams are tried.", COREDNS},
    {"next", "array", "[]", "RCODE mnemonics", "next RCODE...",
     "Hand a query on to the next forward when the answer has one of these.", COREDNS},
    {"failover", "array", "[]", "RCODE mnemonics but NOERROR", "failover RCODE...",
     "Ask the next upstream when the answer has one of these.", COREDNS},
    {"tls", "array", "null", "null, or [], [CA], [CERT, KEY], [CERT, KEY, CA]",
     "tls [CA | CERT KEY [CA]]", "Files for TLS upstreams.", COREDNS},
    {"tls_servername", "string", "\"\"", "a host name", "tls_servername NAME",
     "The name to find in the certificates of TLS upstreams.", COREDNS},
    {"doh_method", "string", "\"POST\"", "POST, GET", "doh_method POST|GET",
     "HTTP method towards https upstreams.", COREDNS},
    {"source_address", "string", "null", "an IP address, or null", "source_address IP",
     "Source address of queries and probes.", COREDNS},
    {"resolver", "array", "[]", "IP or IP:PORT each", "resolver IP[:PORT]...",
     "Where host names among the upstreams are looked up, instead of the system's resolvers.",
     COREDNS},
    {"port_budget", "integer", "1000", UINT32_RANGE, "port_budget N",
     "Fresh UDP source ports per upstream and second (RFC 5452); 0 pools as CoreDNS does.", "fwd"},
};

const size_t option_defs_count = sizeof(option_defs) / sizeof(*option_defs);
