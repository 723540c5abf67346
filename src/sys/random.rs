//! Random bytes from the kernel.

use crate::error::{Doing, Failure, Kind, Result};

/// `N` random bytes.
///
/// # Errors
/// [`Kind::Unexpected`] if the kernel gives none.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut random = [0; N];
    let got = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)
        .doing(Kind::Unexpected, || "asking the kernel for random bytes")?;
    if got < N {
        let what = format!("asking the kernel for {N} random bytes: it gave {got}");
        return Err(Failure::new(Kind::Unexpected, what));
    }
    Ok(random)
}
