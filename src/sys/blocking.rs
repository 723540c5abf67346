//! Work that blocks, on its own thread.

use crate::error::{Doing, Kind, Result};

/// Starts work that blocks at once; the future ends with it.
///
/// # Errors
/// Its own, and [`Kind::Unexpected`] if it panics.
pub fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> impl Future<Output = Result<T>> {
    let running = tokio::task::spawn_blocking(work);
    async {
        running
            .await
            .doing(Kind::Unexpected, || "running a thread")?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    #[tokio::test]
    async fn it_begins_before_it_is_waited_for_and_a_panic_is_a_failure() {
        let (begun, seen) = std::sync::mpsc::channel();
        let work = blocking(move || {
            begun.send(()).unwrap();
            Ok(1)
        });
        seen.recv().unwrap();
        assert_eq!(work.await.unwrap(), 1);
        let failed = blocking(|| -> Result<()> { Err(Failure::new(Kind::Store, "x")) }).await;
        assert_eq!(failed.unwrap_err().kind(), Kind::Store);
        let panicked = blocking(|| -> Result<()> { panic!("on purpose") }).await;
        assert_eq!(panicked.unwrap_err().kind(), Kind::Unexpected);
    }
}
