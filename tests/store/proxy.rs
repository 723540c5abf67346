//! What stands between client and server and counts bytes, of whatever protocol, until it cuts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What stands between client and server.
pub struct Proxy {
    pub address: SocketAddr,
    /// Bytes towards the server that still pass; once they are used up every connection is cut,
    /// and no new one is taken.
    pub budget: Arc<AtomicI64>,
    /// How often connections are cut and new ones taken, with as many bytes again, before that.
    pub again: Arc<AtomicI64>,
    /// Bytes that have passed towards the server.
    pub passed: Arc<AtomicI64>,
}

impl Proxy {
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let proxy = Self {
            address: listener.local_addr().expect("its address"),
            budget: Arc::new(AtomicI64::new(i64::MAX)),
            again: Arc::new(AtomicI64::new(0)),
            passed: Arc::new(AtomicI64::new(0)),
        };
        let (budget, passed) = (Arc::clone(&proxy.budget), Arc::clone(&proxy.passed));
        let again = Arc::clone(&proxy.again);
        std::thread::spawn(move || {
            let mut first = None;
            for client in listener.incoming().flatten() {
                let most = *first.get_or_insert(budget.load(Ordering::SeqCst));
                if budget.load(Ordering::SeqCst) <= 0 {
                    if again.fetch_sub(1, Ordering::SeqCst) <= 0 {
                        continue;
                    }
                    budget.store(most, Ordering::SeqCst);
                }
                let (budget, passed) = (Arc::clone(&budget), Arc::clone(&passed));
                std::thread::spawn(move || serve(client, server, &budget, &passed));
            }
        });
        proxy
    }
}

fn serve(mut client: TcpStream, server: SocketAddr, budget: &AtomicI64, passed: &AtomicI64) {
    let Ok(mut upstream) = TcpStream::connect(server) else {
        return;
    };
    let (mut back_from, mut back_to) = (
        upstream.try_clone().expect("a clone"),
        client.try_clone().expect("a clone"),
    );
    std::thread::spawn(move || {
        // Either end may go at any time; that is the point.
        let _ = std::io::copy(&mut back_from, &mut back_to);
        let _ = back_to.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 16384];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let left = budget.fetch_sub(read as i64, Ordering::SeqCst);
        let pass = usize::try_from(left.max(0)).unwrap_or(0).min(read);
        passed.fetch_add(pass as i64, Ordering::SeqCst);
        if upstream.write_all(&buffer[..pass]).is_err() || pass < read {
            break;
        }
    }
    let _ = upstream.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
