/* Which texts share a configuration, and for how long. What comes of one is never looked at here, so that all say the same but for the blanks
 * behind. */
#include "config_share.h"
#include "suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

enum { LONGEST = 4096, THREADS = 4, ROUNDS = 2000 };

static char text[LONGEST + 2]; /* a configuration and blanks: its length tells it from others */

static void setup(void)
{
    static const char json[] = "{\"forward\":[{\"from\":\".\",\"to\":[{\"addr\":\"127.0.0.1:53\"}]}]}";

    memset(text, ' ', sizeof(text));
    memcpy(text, json, strlen(json));
}

static const struct config *make(size_t len)
{
    struct config *config = NULL;

    ck_assert_int_eq(config_parse(text, len, &config, NULL), FWD_OK);
    return config_share(config, text, len);
}

START_TEST(known_until_nobody_uses_it)
{
    const struct config *made = make(100);

    ck_assert_ptr_eq(config_find(text, 100), made);
    ck_assert_ptr_null(config_find(text, 99));
    text[0] = '[';
    ck_assert_ptr_null(config_find(text, 100));
    text[0] = '{';
    config_leave(made);
    ck_assert_ptr_eq(config_find(text, 100), made);
    config_leave(made);
    ck_assert_uint_eq(made->stanza_count, 1);
    config_leave(made);
    ck_assert_ptr_null(config_find(text, 100));
    config_leave(NULL);
}
END_TEST

START_TEST(not_known)
{
    struct config *config = NULL;
    const struct config *longest = make(LONGEST);
    const struct config *longer = make(LONGEST + 1);

    ck_assert_int_eq(config_parse(text, 100, &config, NULL), FWD_OK);
    ck_assert_ptr_eq(config_share(config, NULL, 100), config);
    ck_assert_ptr_null(config_find(text, 100));
    ck_assert_ptr_null(config_find(text, LONGEST + 1));
    ck_assert_ptr_eq(config_find(text, LONGEST), longest);
    config_leave(longest);
    config_leave(longest);
    config_leave(longer);
    config_leave(config);
}
END_TEST

/* The newer one of two is found, whether it took the place of another text or came of the same one; the older one's end does not change that. */
START_TEST(newer_takes_the_place)
{
    const struct config *older = make(100);
    const struct config *newer = make(100);
    size_t len = 100;

    ck_assert_ptr_eq(config_find(text, 100), newer);
    config_leave(newer);
    config_leave(older);
    ck_assert_ptr_eq(config_find(text, 100), newer);
    config_leave(newer);
    older = newer;
    for (newer = NULL; newer == NULL;) { /* one that has the same place */
        const struct config *other = make(++len);
        const struct config *found = config_find(text, 100);

        config_leave(found);
        if (found == NULL) {
            newer = other;
        } else {
            config_leave(other);
        }
        ck_assert_uint_lt(len, LONGEST);
    }
    config_leave(older);
    ck_assert_ptr_eq(config_find(text, len), newer);
    config_leave(newer);
    config_leave(newer);
    ck_assert_ptr_null(config_find(text, len));
}
END_TEST

static atomic_uint faults;

static void *use_and_leave(void *arg)
{
    for (size_t i = 0; i < ROUNDS; i++) {
        size_t len = 100 + (i + (uintptr_t)arg) % 5;
        const struct config *config = config_find(text, len);
        struct config *parsed = NULL;

        if (config == NULL && config_parse(text, len, &parsed, NULL) == FWD_OK) {
            config = config_share(parsed, text, len);
        }
        atomic_fetch_add(&faults, config == NULL || config->stanza_count != 1 || config->text_len != len);
        config_leave(config);
    }
    return NULL;
}

START_TEST(threads)
{
    pthread_t ids[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&ids[i], NULL, use_and_leave, (void *)(i / 2)), 0);
    }
    for (uintptr_t i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(ids[i], NULL), 0);
    }
    ck_assert_uint_eq(faults, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config_share");
    TCase *tcase = tcase_create("config_share");

    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, known_until_nobody_uses_it);
    tcase_add_test(tcase, not_known);
    tcase_add_test(tcase, newer_takes_the_place);
    tcase_add_test(tcase, threads);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
