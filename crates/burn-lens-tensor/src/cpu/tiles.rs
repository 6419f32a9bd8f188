//! Blocks of bfloat16 multiplied by the processor's tile registers (Intel AMX).
//!
//! Rust has no intrinsics for them yet, so they are reached by inline assembly. A process must ask Linux for
//! their state once. Tiles read numbers below the smallest normal one as 0, and sum in an order of their own.
//!
//! Source: *Intel 64 and IA-32 Architectures Software Developer's Manual*, vol. 1, ch. 18 (AMX) and vol. 2,
//! `TDPBF16PS`; the kernel's `Documentation/arch/x86/xstate.rst`.

/// The rows, columns or terms of a block.
pub(super) const SIDE: usize = 32;

/// The rows of a tile.
const TILE: usize = SIDE / 2;

/// A block of a matrix of bfloat16: pairs of terms of a sum, as `first | second << 16`.
///
/// Of the left matrix: two tiles of 16 rows of 16 pairs, behind each other. Of the right matrix: two tiles
/// of 16 pairs of 16 columns, beside each other.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Block(pub(super) [u32; SIDE * TILE]);

impl Block {
    pub(super) const ZERO: Self = Self([0; SIDE * TILE]);
}

/// A block of sums, row by row.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [f32; SIDE * SIDE]);

/// What multiplies blocks, on the thread that it was started on.
pub(super) trait Tiles {
    fn start() -> Self;

    /// `out = x w`: the sum of the products of the blocks of `x` and those of `w`, of which there are as many.
    fn multiply(&self, x: &[Block], w: &[Block], out: &mut Sums);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use registers::Registers;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod registers {
    use std::{
        arch::{asm, x86_64::__cpuid_count},
        marker::PhantomData,
        sync::OnceLock,
    };

    use super::{Block, SIDE, Sums, TILE, Tiles};

    /// The tile registers of a thread, released when dropped.
    #[derive(Debug)]
    pub(in crate::cpu) struct Registers {
        _of_this_thread: PhantomData<*const ()>,
    }

    /// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_of_row: [u16; 16],
        rows: [u8; 16],
    }

    impl Configuration {
        const ALL_WHOLE: Self = {
            let (mut bytes_of_row, mut rows) = ([0; 16], [0; 16]);
            let mut tile = 0;
            while tile < 8 {
                bytes_of_row[tile] = 64;
                rows[tile] = TILE as u8;
                tile += 1;
            }
            Self { palette: 1, start_row: 0, reserved: [0; 14], bytes_of_row, rows }
        };
    }

    impl Registers {
        /// Whether the processor has them, and the system lets this process use them.
        pub(in crate::cpu) fn available() -> bool {
            static AVAILABLE: OnceLock<bool> = OnceLock::new();
            *AVAILABLE.get_or_init(|| has_tiles() && permitted())
        }
    }

    /// Whether the processor has tiles of bfloat16.
    fn has_tiles() -> bool {
        /// `AMX-BF16` and `AMX-TILE` in leaf 7.
        const BITS: u32 = (1 << 22) | (1 << 24);
        __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & BITS == BITS
    }

    /// Asks the system for the state of tiles, for every thread of the process.
    fn permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call takes two numbers, and changes which registers the process may use, no memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    impl Tiles for Registers {
        fn start() -> Self {
            assert!(Self::available(), "no tile registers");
            let configuration = &Configuration::ALL_WHOLE;
            // SAFETY: the processor has tiles and the system permits them; 64 bytes are read.
            unsafe { asm!("ldtilecfg [{}]", in(reg) configuration, options(nostack, readonly)) };
            Self { _of_this_thread: PhantomData }
        }

        fn multiply(&self, x: &[Block], w: &[Block], out: &mut Sums) {
            const ROW: usize = 4 * TILE;
            const ROW_OF_SUMS: usize = 4 * SIDE;
            let blocks = x.len();
            assert_eq!(blocks, w.len(), "as many blocks on the left as on the right");
            if blocks == 0 {
                out.0.fill(0.0);
                return;
            }
            // SAFETY: tiles are configured while `self` lives, on this thread alone. `blocks` times, 2 KiB of
            // `x` and of `w` are read, the size of a block; the four stores write all 4 KiB of `out`.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{x} + {row}]",
                    "tileloadd tmm6, [{w} + {row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{w} + {row} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{x} + {row} + 1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {x}, 2048",
                    "add {w}, 2048",
                    "dec {blocks}",
                    "jnz 2b",
                    "tilestored [{out} + {row_of_sums}], tmm0",
                    "tilestored [{out} + {row_of_sums} + 64], tmm1",
                    "tilestored [{out} + {row_of_sums} + 2048], tmm2",
                    "tilestored [{out} + {row_of_sums} + 2112], tmm3",
                    x = inout(reg) x.as_ptr() => _,
                    w = inout(reg) w.as_ptr() => _,
                    blocks = inout(reg) blocks => _,
                    out = in(reg) out.0.as_mut_ptr(),
                    row = in(reg) ROW,
                    row_of_sums = in(reg) ROW_OF_SUMS,
                    options(nostack),
                );
            }
        }
    }

    impl Drop for Registers {
        fn drop(&mut self) {
            // SAFETY: tiles were configured by `start` on this thread, and nothing of them is read again.
            unsafe { asm!("tilerelease", options(nomem, nostack)) };
        }
    }
}

/// Tiles where there are none: never started.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[derive(Debug)]
pub(super) enum Registers {}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
impl Registers {
    /// False.
    pub(super) fn available() -> bool {
        false
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
impl Tiles for Registers {
    fn start() -> Self {
        unreachable!("no tile registers")
    }

    fn multiply(&self, _: &[Block], _: &[Block], _: &mut Sums) {
        match *self {}
    }
}

/// The tile registers as their description has them, in plain Rust.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Described;

#[cfg(test)]
impl Tiles for Described {
    fn start() -> Self {
        Self
    }

    fn multiply(&self, x: &[Block], w: &[Block], out: &mut Sums) {
        let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
        out.0.fill(0.0);
        for (x, w) in x.iter().zip(w) {
            for (at, sum) in out.0.iter_mut().enumerate() {
                let (row, column) = (at / SIDE, at % SIDE);
                for pair in 0..TILE {
                    let [x0, x1] = halves(x.0[row * TILE + pair]);
                    let [w0, w1] = halves(w.0[column / TILE * TILE * TILE + pair * TILE + column % TILE]);
                    *sum += x0 * w0 + x1 * w1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_multiply_as_described() {
        if !Registers::available() {
            println!("this processor has no tile registers: nothing to compare");
            return;
        }
        // Small whole numbers, whose sums are exact in any order.
        let mut state = 7_u32;
        let mut block = || {
            let mut block = Block::ZERO;
            for pair in &mut block.0 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let of = |bits: u32| ((bits % 17) as f32 - 8.0).to_bits() >> 16;
                *pair = of(state >> 8) | of(state >> 20) << 16;
            }
            block
        };
        let (x, w): (Vec<_>, Vec<_>) = (0..5).map(|_| (block(), block())).unzip();
        let [mut found, mut expected] = [Sums([1.0; SIDE * SIDE]), Sums([2.0; SIDE * SIDE])];
        Registers::start().multiply(&x, &w, &mut found);
        Described::start().multiply(&x, &w, &mut expected);
        assert_eq!(found.0, expected.0);
        Registers::start().multiply(&[], &[], &mut found);
        assert_eq!(found.0, [0.0; SIDE * SIDE]);
    }
}
