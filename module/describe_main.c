/* Prints the module's own document: the build makes forward.json with it, from the very code that
 * describe() runs.
 * Failure: exit 1 when the text cannot be written.
 */
#include "describe.h"

#include <stdio.h>

int main(void)
{
    return fputs(describe_text(), stdout) == EOF || fflush(stdout) == EOF;
}
