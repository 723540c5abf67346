//! Separate loopback networks, so that every cluster can use etcd's standard ports at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A `127.A.B.0/24` that no other cluster on this machine uses.
#[derive(Debug)]
pub struct Loopback {
    first: u8,
    a: u8,
    b: u8,
    // Bound as long as the network is in use: who cannot bind it must look elsewhere. The kernel
    // frees it however this process ends.
    _reservation: Option<TcpListener>,
}

impl Loopback {
    /// Reserves one; starts at a place that depends on the process, so that suites running side
    /// by side rarely meet.
    pub fn reserve() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // 127.0.x.x is left to others; the numbers below are all of 127.16.0 to 127.254.254.
        const NETWORKS: u32 = 239 * 255;
        let start = std::process::id().wrapping_mul(97);
        for _ in 0..4096 {
            let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % NETWORKS;
            let a = u8::try_from(16 + n / 255).expect("at most 254");
            let b = u8::try_from(n % 255).expect("at most 254");
            if let Ok(reservation) = TcpListener::bind((Ipv4Addr::new(127, a, b, 254), 2379)) {
                let mine = Self {
                    first: 127,
                    a,
                    b,
                    _reservation: Some(reservation),
                };
                if (0..8).all(|member| mine.is_free(member)) {
                    return mine;
                }
            }
        }
        panic!("no free 127.x.y.0/24 for a cluster");
    }

    /// `10.77.0.0/24`, for a test in its own namespace, which adds the addresses. Other than
    /// 127.0.0.0/8 each belongs to one member, and can be gone.
    pub fn of_machines() -> Self {
        Self {
            first: 10,
            a: 77,
            b: 0,
            _reservation: None,
        }
    }

    /// The addresses as which one machine may be seen by another: on one machine the one that is
    /// called is the one that calls.
    pub fn callers(&self, member: IpAddr) -> Vec<IpAddr> {
        match self.first {
            127 => vec![member],
            _ => (0..8).map(|member| self.ip(member)).collect(),
        }
    }

    fn is_free(&self, member: usize) -> bool {
        [2379, 2380]
            .iter()
            .all(|port| TcpListener::bind((self.ip(member), *port)).is_ok())
    }

    /// The address of member `i`: the network's, ending in `i + 1`.
    pub fn ip(&self, member: usize) -> IpAddr {
        let host = u8::try_from(member + 1).expect("few members");
        IpAddr::V4(Ipv4Addr::new(self.first, self.a, self.b, host))
    }
}

/// An address of this machine on which nothing listens, and which no other test is given as long as
/// this process lives.
///
/// Port 0 would not do: the kernel gives such a port to the next connection that anybody opens, before
/// the server that it is meant for listens. These lie below the range from which it takes them
/// (32768 and up, ip(7)), and the same port of 127.0.0.2 is held as long as this process lives.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 20_000;
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..PORTS {
        let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(FIRST + number).expect("below 65536");
        let Ok(held) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            std::mem::forget(held);
            return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        }
    }
    panic!("no free port");
}
