//! The allocator of the command.
//!
//! Activations are tens of megabytes each and come and go all the time. Memory that was given back to the
//! system has to be cleared before it is used again, which can take longer than what is computed in it; so what is
//! free stays in the process. The peak of one run is the same; after several different ones it can be a tenth more.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Never gives memory back while the process runs.
pub(crate) fn keep_memory() {
    /// `mi_option_purge_delay`: milliseconds, or never where it is negative.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number that the allocator reads, before other threads run.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
