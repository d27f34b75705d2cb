/* HOST:PORT and IP addresses as Go takes them. */
#include "hostport.h"
#include "suite.h"

#include <net/if.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static const struct {
    const char *text;
    const char *host; /* NULL: refused */
    const char *port;
} split_rows[] = {
    {"a:53", "a", "53"},        {"1.1.1.1:", "1.1.1.1", ""},
    {":53", "", "53"},          {"[::1]:53", "::1", "53"},
    {"[a]:x", "a", "x"},        {"[::1%eth0]:53", "::1%eth0", "53"},
    {"a", NULL, NULL},          {"", NULL, NULL},
    {"::1", NULL, NULL},        {"a:b:c", NULL, NULL},
    {"[::1]", NULL, NULL},      {"[::1", NULL, NULL},
    {"[::1]x:53", NULL, NULL},  {"[::1]:5:3", NULL, NULL},
    {"[[::1]]:53", NULL, NULL}, {"a]:53", NULL, NULL},
    {"a[:53", NULL, NULL},      {"[a]:5]3", NULL, NULL},
};

START_TEST(split_case)
{
    struct hostport parts;
    int status = hostport_split(split_rows[_i].text, &parts);
    char host[64];

    ck_assert_int_eq(status, split_rows[_i].host != NULL ? 0 : -1);
    if (status == 0) {
        (void)snprintf(host, sizeof(host), "%.*s", (int)parts.host.len, parts.host.text);
        ck_assert_str_eq(host, split_rows[_i].host);
        ck_assert_str_eq(parts.port, split_rows[_i].port);
    }
}
END_TEST

static const struct {
    const char *text;
    const char *printed; /* NULL: no IP address */
} ip_rows[] = {
    {"127.0.0.1", "127.0.0.1"},
    {"::1", "::1"},
    {"2001:DB8::0:1", "2001:db8::1"},
    {"::ffff:1.2.3.4", "1.2.3.4"}, /* case 38 */
    {"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
    {"127.1", NULL},
    {"01.1.1.1", NULL},
    {"256.1.1.1", NULL},
    {"1.1.1.1 ", NULL},
    {"fe80::1%lo", NULL},
    {"[::1]", NULL},
    {"1::2::3", NULL},
    {"12345::", NULL},
    {"", NULL},
    {"1111:2222:3333:4444:5555:6666:255.255.255.255x", NULL},
};

START_TEST(ip_case)
{
    struct fwd_addr addr = {0};
    char printed[48];
    bool ok = ip_parse(ip_rows[_i].text, strlen(ip_rows[_i].text), &addr);

    ck_assert_int_eq(ok, ip_rows[_i].printed != NULL);
    if (ok) {
        ip_print(&addr, printed);
        ck_assert_str_eq(printed, ip_rows[_i].printed);
    }
}
END_TEST

static const struct {
    const char *text;
    enum hostport_kind kind;
    uint8_t family;
    uint16_t port;
} address_rows[] = {
    {"127.0.0.1:53", HOSTPORT_ADDRESS, 4, 53},
    {"[::1]:5353", HOSTPORT_ADDRESS, 6, 5353},
    {"[::ffff:1.2.3.4]:53", HOSTPORT_ADDRESS, 4, 53},
    {"[fe80::1%7]:53", HOSTPORT_ADDRESS, 6, 53},
    {"[2001:db8::1%nonesuch]:53", HOSTPORT_ADDRESS, 6, 53}, /* no scope needed */
    {"[fe80::1%nonesuch]:53", HOSTPORT_SCOPE, 0, 0},
    {"[fe80::1%]:53", HOSTPORT_SCOPE, 0, 0},
    {"127.0.0.1:", HOSTPORT_ADDRESS, 4, 0},
    {"127.0.0.1:65535", HOSTPORT_ADDRESS, 4, 65535},
    {"127.0.0.1:65536", HOSTPORT_NAME, 0, 0},
    {"127.0.0.1:-1", HOSTPORT_NAME, 0, 0},
    {"127.0.0.1:domain", HOSTPORT_NAME, 0, 0},
    {"dns.test:53", HOSTPORT_NAME, 0, 0},
    {"[1.1.1.1:5353]:53", HOSTPORT_NAME, 0, 0},
    {"127.0.0.1", HOSTPORT_NAME, 0, 0},
};

START_TEST(address_case)
{
    struct fwd_addr addr;

    ck_assert_int_eq(hostport_address(address_rows[_i].text, &addr), address_rows[_i].kind);
    ck_assert_uint_eq(addr.family, address_rows[_i].family);
    ck_assert_uint_eq(addr.port, address_rows[_i].port);
}
END_TEST

START_TEST(scope_is_an_interface)
{
    struct fwd_addr addr;

    ck_assert_int_eq(hostport_address("[fe80::1%7]:53", &addr), HOSTPORT_ADDRESS);
    ck_assert_uint_eq(addr.scope_id, 7);
    if (if_nametoindex("lo") > 0) {
        ck_assert_int_eq(hostport_address("[fe80::1%lo]:53", &addr), HOSTPORT_ADDRESS);
        ck_assert_uint_eq(addr.scope_id, if_nametoindex("lo"));
    }
    ck_assert_int_eq(hostport_address("[2001:db8::1%7]:53", &addr), HOSTPORT_ADDRESS);
    ck_assert_uint_eq(addr.scope_id, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostport");
    TCase *tcase = tcase_create("hostport");

    tcase_add_loop_test(tcase, split_case, 0, COUNT(split_rows));
    tcase_add_loop_test(tcase, ip_case, 0, COUNT(ip_rows));
    tcase_add_loop_test(tcase, address_case, 0, COUNT(address_rows));
    tcase_add_test(tcase, scope_is_an_interface);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
