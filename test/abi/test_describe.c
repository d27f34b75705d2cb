/* The module's own document: the same octets from describe() as in forward.json, valid JSON,
 * complete, and still a document when memory runs out while it is made.
 *
 * FWD_MODULE and FWD_MANIFEST name forward.so and forward.json. The out-of-memory test calls
 * describe_text() of the archive, whose allocations it can fail; each attempt is a process of its
 * own because the text is made only once in each.
 */
#include "describe.h"

#include <forward/abi.h>

#include <check.h>
#include <dlfcn.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct fwd_module *load_module(void)
{
    const struct fwd_module *(*entry)(uint32_t);
    void *library = dlopen(getenv("FWD_MODULE"), RTLD_NOW | RTLD_LOCAL);

    ck_assert_msg(library != NULL, "%s", dlerror());
    *(void **)&entry = dlsym(library, "fwd_module_entry");
    ck_assert(entry != NULL);
    return entry(FWD_ABI_MAJOR);
}

START_TEST(same_as_manifest)
{
    const char *text = load_module()->describe();
    FILE *file = fopen(getenv("FWD_MANIFEST"), "rb");
    char *manifest = calloc(1, strlen(text) + 2);

    ck_assert_ptr_nonnull(file);
    ck_assert_ptr_nonnull(manifest);
    ck_assert_uint_eq(fread(manifest, 1, strlen(text) + 1, file), strlen(text));
    ck_assert_str_eq(manifest, text);
    ck_assert_ptr_eq(load_module()->describe(), text);
    free(manifest);
    (void)fclose(file);
}
END_TEST

/* Every entry of an array has all these string members, and there is at least one entry. */
static void check_entries(const json_t *array, const char *const *keys)
{
    size_t index;
    json_t *entry;

    ck_assert_uint_gt(json_array_size(array), 0);
    json_array_foreach(array, index, entry)
    {
        for (const char *const *key = keys; *key != NULL; key++) {
            ck_assert_msg(json_is_string(json_object_get(entry, *key)), "entry %zu has no %s",
                          index, *key);
        }
    }
}

START_TEST(complete)
{
    static const char *const option[] = {"name", "type",   "range", "corefile",
                                         "help", "origin", NULL};
    static const char *const metric[] = {"name", "type", "help", NULL};
    static const char *const error[] = {"name", "text", NULL};
    const struct fwd_module *module = load_module();
    json_t *root = json_loads(module->describe(), JSON_REJECT_DUPLICATES, NULL);
    const json_t *abi = json_object_get(root, "abi");
    const json_t *errors = json_object_get(root, "errors");
    size_t index;
    json_t *entry;

    ck_assert_ptr_nonnull(root);
    check_entries(json_object_get(json_object_get(root, "config"), "stanza"), option);
    check_entries(json_object_get(root, "metrics"), metric);
    check_entries(errors, error);
    ck_assert_int_eq(json_integer_value(json_object_get(abi, "major")), FWD_ABI_MAJOR);
    ck_assert_int_eq(json_integer_value(json_object_get(abi, "minor")), FWD_ABI_MINOR);
    json_array_foreach(json_object_get(abi, "interfaces"), index, entry)
    {
        ck_assert_ptr_nonnull(module->get_interface(json_string_value(entry)));
    }
    ck_assert_uint_eq(index, 3);
    json_array_foreach(errors, index, entry)
    {
        int code = (int)json_integer_value(json_object_get(entry, "code"));
        ck_assert_str_eq(module->strerror(code), json_string_value(json_object_get(entry, "text")));
    }
    ck_assert_ptr_nonnull(module->strerror(-12345));
    json_decref(root);
}
END_TEST

static long allocations_left;

static void *failing_malloc(size_t size)
{
    return allocations_left-- > 0 ? malloc(size) : NULL;
}

/* In a child: makes the document with so many allocations. @return its exit status: 0 whole, 1
 * minimal, 2 broken */
static int describe_with(long allocations)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        allocations_left = allocations;
        json_set_alloc_funcs(failing_malloc, free);
        const char *text = describe_text();
        json_set_alloc_funcs(malloc, free);
        json_t *root = json_loads(text, 0, NULL);
        if (root == NULL || json_object_get(root, "module") == NULL) {
            _exit(2);
        }
        _exit(json_object_get(root, "metrics") == NULL);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "crash with %ld allocations", allocations);
    return WEXITSTATUS(status);
}

START_TEST(out_of_memory)
{
    long allocations = 0;

    ck_assert_int_eq(describe_with(0), 1);
    while (describe_with(allocations) == 1) {
        allocations += 1 + allocations / 16;
        ck_assert_int_lt(allocations, 1000000);
    }
    ck_assert_int_eq(describe_with(allocations), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("describe");
    TCase *tests = tcase_create("describe");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, same_as_manifest);
    tcase_add_test(tests, complete);
    tcase_add_test(tests, out_of_memory);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
