/* What every fuzz target defines: libFuzzer calls it with inputs of its making, replay.c with those
 * of a directory. */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
