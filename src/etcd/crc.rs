//! CRC-32C of pieces that are met in another order than they are hashed in.
//!
//! The CRC of a concatenation follows from the CRCs of its parts: with `P` the Castagnoli
//! polynomial (0x82F63B78 reflected), `crc(a ‖ b) = crc(a) · x^(8·|b|) + crc(b)  (mod P)`. That is
//! the identity behind zlib's `crc32_combine`; kept here as an operator per piece, because a
//! descending walk joins a piece for every page.

const POLYNOMIAL: u32 = 0x82F6_3B78;
/// `x^0` in the reflected representation, where the top bit is the constant term.
const ONE: u32 = 1 << 31;

/// `a · b mod P`, bit by bit: for the tables.
const fn multiply_slowly(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & 0u32.wrapping_sub((a >> (31 - bit)) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
        bit += 1;
    }
    product
}

/// `REDUCED[k][i]`: byte `k` of a number with the value `i`, times `x^32`. That is what the lower half of a
/// product stands for; `x^32 mod P` is the polynomial without its highest term.
static REDUCED: [[u32; 256]; 4] = {
    let mut tables = [[0; 256]; 4];
    let mut k = 0;
    while k < 4 {
        let mut i = 0;
        while i < 256 {
            tables[k][i] = multiply_slowly((i as u32) << (8 * k), POLYNOMIAL);
            i += 1;
        }
        k += 1;
    }
    tables
};

/// `a · b mod P`.
fn multiply(a: u32, b: u32) -> u32 {
    // A product of 63 bits, whose highest one is the constant term.
    let product = carryless(a, b) << 1;
    let bytes = (product as u32).to_le_bytes();
    let reduced = REDUCED.iter().zip(bytes).fold(0, |sum, (table, byte)| {
        sum ^ table.get(usize::from(byte)).copied().unwrap_or(0)
    });
    (product >> 32) as u32 ^ reduced
}

/// The product of two polynomials over GF(2). Of each number only every fourth bit takes part at a time, so that
/// no sum of an ordinary product, of eight bits at most, carries into the next bit that counts (as in BearSSL's
/// `ghash_ctmul.c`).
fn carryless(a: u32, b: u32) -> u64 {
    const EVERY_FOURTH: u64 = 0x1111_1111_1111_1111;
    let parts = |n: u32| [0, 1, 2, 3].map(|shift| u64::from(n) & (EVERY_FOURTH << shift));
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (parts(a), parts(b));
    let sum0 = (a0 * b0) ^ (a1 * b3) ^ (a2 * b2) ^ (a3 * b1);
    let sum1 = (a0 * b1) ^ (a1 * b0) ^ (a2 * b3) ^ (a3 * b2);
    let sum2 = (a0 * b2) ^ (a1 * b1) ^ (a2 * b0) ^ (a3 * b3);
    let sum3 = (a0 * b3) ^ (a1 * b2) ^ (a2 * b1) ^ (a3 * b0);
    (sum0 & EVERY_FOURTH)
        | (sum1 & (EVERY_FOURTH << 1))
        | (sum2 & (EVERY_FOURTH << 2))
        | (sum3 & (EVERY_FOURTH << 3))
}

/// `POWERS[k][i] = x^(8 · i · 256^k)`: one product for each byte of a length.
static POWERS: [[u32; 256]; 5] = {
    let mut tables = [[ONE; 256]; 5];
    // x^8: one byte.
    let mut step = ONE >> 8;
    let mut k = 0;
    while k < 5 {
        let mut i = 1;
        while i < 256 {
            tables[k][i] = multiply_slowly(tables[k][i - 1], step);
            i += 1;
        }
        step = multiply_slowly(tables[k][255], step);
        k += 1;
    }
    tables
};

/// `x^(8·len) mod P`.
fn power(len: u64) -> u32 {
    let mut product = ONE;
    let mut rest = len;
    for table in &POWERS {
        if rest == 0 {
            return product;
        }
        let factor = table.get((rest & 0xFF) as usize).copied().unwrap_or(ONE);
        product = match product {
            ONE => factor,
            product => multiply(product, factor),
        };
        rest >>= 8;
    }
    // Beyond 2^40 bytes: square and multiply from x^(8·2^40).
    let [.., [.., x_255]] = POWERS;
    let [.., [_, x_1, ..]] = POWERS;
    let mut step = multiply(x_255, x_1);
    while rest != 0 {
        if rest & 1 == 1 {
            product = multiply(product, step);
        }
        step = multiply(step, step);
        rest >>= 1;
    }
    product
}

/// The CRC-32C of a run of bytes, ready to be joined to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CrcSpan {
    crc: u32,
    /// `x^(8·len)` of the run.
    shift: u32,
}

impl CrcSpan {
    /// The empty run.
    pub(crate) const EMPTY: Self = Self { crc: 0, shift: ONE };

    /// The run with this CRC and length.
    pub(crate) fn new(crc: u32, len: u64) -> Self {
        Self {
            crc,
            shift: power(len),
        }
    }

    /// The run made of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self::new(crc32c::crc32c(bytes), bytes.len() as u64)
    }

    /// This run followed by another.
    #[must_use]
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            crc: multiply(self.crc, next.shift) ^ next.crc,
            shift: multiply(self.shift, next.shift),
        }
    }

    /// The CRC-32C of the run.
    pub(crate) fn crc(self) -> u32 {
        self.crc
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_holds() {
        assert_eq!(CrcSpan::of(b"123456789").crc(), 0xE306_9283);
        assert_eq!(CrcSpan::of(b"key").crc(), 1_084_519_789);
    }

    #[test]
    fn lengths_beyond_the_tables_agree_with_the_crate() {
        for len in [1u64, 255, 256, 65_537, 1 << 33, (1 << 40) + 77, 1 << 43] {
            let joined = CrcSpan::of(b"left").then(CrcSpan::new(0x1234_5678, len));
            let oracle = crc32c::crc32c_combine(crc32c::crc32c(b"left"), 0x1234_5678, len as usize);
            assert_eq!(joined.crc(), oracle, "length {len}");
        }
    }

    proptest! {
        #[test]
        fn both_products_agree(a in any::<u32>(), b in any::<u32>()) {
            prop_assert_eq!(multiply(a, b), multiply_slowly(a, b));
            prop_assert_eq!(multiply(a, ONE), a);
            prop_assert_eq!(multiply(u32::MAX, b), multiply_slowly(u32::MAX, b));
        }

        #[test]
        fn pieces_join_to_the_crc_of_the_whole(
            a in proptest::collection::vec(any::<u8>(), 0..3000),
            b in proptest::collection::vec(any::<u8>(), 0..3000),
            c in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let whole = crc32c::crc32c(&[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (CrcSpan::of(&a), CrcSpan::of(&b), CrcSpan::of(&c));
            prop_assert_eq!(a.then(b).then(c).crc(), whole);
            prop_assert_eq!(a.then(b.then(c)).crc(), whole);
            prop_assert_eq!(CrcSpan::EMPTY.then(a).then(CrcSpan::EMPTY), a);
        }
    }
}
