/* Compiled on its own in every dialect that the header promises, with all warnings as errors: it
 * needs no other header, and its macros work in C and C++. Only compiled, never run.
 */
#include <forward/abi.h>

uint32_t header_use(const struct fwd_module *module);

uint32_t header_use(const struct fwd_module *module)
{
    struct fwd_query query = FWD_INIT(struct fwd_query);
    const struct fwd_forward *forward = 0;

    if (FWD_HAS(module, get_interface)) {
        forward = (const struct fwd_forward *)module->get_interface(FWD_FORWARD_ID);
    }
    if (forward != 0 && FWD_HAS(forward, serve) && FWD_COVERS(&query, detail)) {
        query.verdict = FWD_VERDICT_NONE;
    }
    return query.verdict + FWD_ABI_VERSION;
}
