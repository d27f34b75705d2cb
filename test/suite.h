/* What every test program ends with: runs a suite; the environment (CK_*) says how it is printed
 * and forked. */
#pragma once

#include <check.h>
#include <stdlib.h>

/** @return the program's exit code */
static inline int suite_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
