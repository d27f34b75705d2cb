/* Runs a fuzz target on every file of the directories given: a corpus is a test.
 *
 * Happy path: each file is read whole and handed over in a block of exactly its size, so that a
 * sanitizer sees any octet read beyond. Failure modes: a directory that cannot be read or is empty
 * fails, as a test that tests nothing.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int file_run(const char *dir, const char *name)
{
    char path[4096];
    uint8_t *data;
    FILE *stream;
    long size;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    stream = fopen(path, "rb");
    if (stream == NULL || fseek(stream, 0, SEEK_END) != 0) {
        perror(path);
        return -1;
    }
    size = ftell(stream);
    rewind(stream);
    data = malloc((size_t)size);
    if (size > 0 && (data == NULL || fread(data, 1, (size_t)size, stream) != (size_t)size)) {
        perror(path);
        return -1;
    }
    (void)fclose(stream);
    (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    int ran = 0;

    for (int i = 1; i < argc; i++) {
        DIR *stream = opendir(argv[i]);
        struct dirent *entry;

        if (stream == NULL) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        while ((entry = readdir(stream)) != NULL) {
            if (entry->d_name[0] == '.') {
                continue;
            }
            if (file_run(argv[i], entry->d_name) != 0) {
                return EXIT_FAILURE;
            }
            ran++;
        }
        (void)closedir(stream);
    }
    (void)printf("%d inputs\n", ran);
    return ran > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
