//! Notifications to systemd: one datagram per message, sd_notify(3). Never waited for: a manager that
//! does not read must not stop a backup.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a message that matters is tried.
const TRIES: u32 = 100;
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// The socket of the service manager, if one started this process.
#[derive(Debug, Default)]
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// From the value of `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn new(address: Option<&OsStr>) -> io::Result<Self> {
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            return Ok(Self(None));
        };
        let address = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read would stop the loop, and with it every backup.
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Self(Some(socket)))
    }

    /// Sends a message (`STATUS=…`, `WATCHDOG=1`) if there is room for it; whether it was sent.
    pub fn say(&self, message: &str) -> bool {
        match &self.0 {
            Some(socket) => socket.send(message.as_bytes()).is_ok(),
            None => true,
        }
    }

    /// Sends one that matters (`READY=1`), for at most five seconds.
    pub async fn insist(&self, message: &str) {
        for _ in 0..TRIES {
            if self.say(message) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_read_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        let sent = (0..100_000)
            .take_while(|_| notifier.say("WATCHDOG=1"))
            .count();
        assert!(sent > 0 && sent < 100_000);
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"WATCHDOG=1");
        assert!(notifier.say("STOPPING=1"));
        assert!(Notifier::new(None).unwrap().say("READY=1"));
        assert!(Notifier::new(Some(OsStr::new("/not/there"))).is_err());
    }

    #[test]
    fn an_abstract_name() {
        let name = format!("etcd-dr-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(Some(OsStr::new(&format!("@{name}")))).unwrap();
        assert!(notifier.say("READY=1"));
        let mut buffer = [0; 64];
        assert_eq!(manager.recv(&mut buffer).unwrap(), 7);
    }
}
