//! What systemd and Prometheus receive.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bench::{Bench, LIMIT, path};
use testbench::bins::{promtool, skip};
use testbench::loopback::free_port;
use testbench::process::wait_for;

/// An HTTP answer: its status and its body.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String), std::io::Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.get(9..12).and_then(|code| code.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| std::io::Error::other(text))
}

/// The value of a series.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

#[test]
fn metrics_health_and_systemd() {
    let Some(bench) = Bench::new() else { return };
    let scratch = bench.cluster.scratch();
    let (socket, file) = (scratch.join("notify"), scratch.join("etcd-dr.prom"));
    let systemd = UnixDatagram::bind(&socket).expect("a socket");
    let (sender, messages) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = systemd.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    let address = free_port();
    let env = [
        ("NOTIFY_SOCKET", path(&socket).to_owned()),
        ("WATCHDOG_USEC", "400000".to_owned()),
    ];
    let listen = address.to_string();
    let more = ["--metrics-listen", &listen, "--textfile", path(&file)];
    let mut scheduled = bench.schedule_with("@yearly", &more, &env);
    assert_eq!(scheduled.next()["result"], "taken");

    // Memory holds keys, so a crash must not write it anywhere: core(5), proc(5).
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", scheduled.pid()));
    let limits = limits.expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<_> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");

    let next = "etcd_dr_next_run_timestamp_seconds";
    let text = wait_for("the metrics of the run", LIMIT, || {
        let (status, text) = get(address, "/metrics").map_err(|error| error.to_string())?;
        assert_eq!(status, 200);
        // This is the last effect of a run.
        value(&text, next).map(|_| text.clone()).ok_or(text)
    })
    .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(get(address, "/healthz").expect("an answer").0, 200);
    assert_eq!(get(address, "/readyz").expect("an answer").0, 200);
    assert_eq!(get(address, "/else").expect("an answer").0, 404);
    for series in [
        "etcd_backup_status{etcd_backup=\"backup-1\",status=\"Completed\"}",
        "etcd_dr_schedule_enabled{schedule=\"@yearly\",timezone=\"UTC\"}",
        "etcd_dr_store_backups{state=\"good\"}",
        "etcd_dr_last_run_success",
        "etcd_dr_run_successes_total",
        "etcd_dr_run_duration_seconds_count",
        "etcd_dr_store_reachable",
        "etcd_dr_unverified_backups",
    ] {
        assert_eq!(value(&text, series), Some(1.0), "{series}\n{text}");
    }
    for series in [
        "etcd_backup_start_time{etcd_backup=\"backup-1\"}",
        "etcd_backup_completion_time{etcd_backup=\"backup-1\"}",
        "etcd_backup_size_bytes{etcd_backup=\"backup-1\"}",
        "etcd_dr_store_size_bytes",
        "etcd_dr_store_free_bytes",
        "etcd_dr_certificate_expiry_timestamp_seconds",
        next,
    ] {
        assert!(value(&text, series) > Some(1000.0), "{series}\n{text}");
    }
    assert!(
        text.contains("etcd_backup_info{etcd_backup=\"backup-1\",node="),
        "{text}"
    );
    assert!(
        text.contains("etcd_dr_run_failures_total{reason=\"unreachable\"} 0"),
        "{text}"
    );
    clean(&text);
    clean(&std::fs::read_to_string(&file).expect("the textfile"));

    let hear = |wanted: &str| {
        while !messages
            .recv_timeout(LIMIT)
            .expect("a message")
            .contains(wanted)
        {}
    };
    hear("READY=1");
    hear("STATUS=next run at ");
    hear("WATCHDOG=1");
    assert_eq!(scheduled.stop().0, Some(0));
    hear("STOPPING=1");
}

#[test]
fn one_run_writes_the_textfile_whatever_its_result() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let file = bench.cluster.scratch().join("etcd-dr.prom");
    let args = ["backup", path(&bench.store), "--textfile", path(&file)];
    bench.run(&args).expect(0);
    let text = std::fs::read_to_string(&file).expect("the textfile");
    assert_eq!(
        value(&text, "etcd_dr_last_run_success"),
        Some(1.0),
        "{text}"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&file)
            .expect("the textfile")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o644);
    clean(&text);
    bench.cluster.kill(0);
    bench.run(&args).expect(4);
    let text = std::fs::read_to_string(&file).expect("the textfile");
    assert_eq!(
        value(&text, "etcd_dr_last_run_success"),
        Some(0.0),
        "{text}"
    );
    assert_eq!(
        value(&text, "etcd_dr_store_backups{state=\"good\"}"),
        Some(1.0)
    );
    assert!(
        text.contains("etcd_dr_run_failures_total{reason=\"unreachable\"} 1"),
        "{text}"
    );
}

/// Every line is a comment of the text format, or a series and a number; promtool says the same
/// where it is there.
fn clean(text: &str) {
    for line in text.lines() {
        let head = line.starts_with("# HELP etcd_") || line.starts_with("# TYPE etcd_");
        let number = line
            .rsplit_once(' ')
            .and_then(|(_, value)| value.parse::<f64>().ok());
        assert!(
            head || (line.starts_with("etcd_") && number.is_some()),
            "{line}"
        );
    }
    let child = Command::new(promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        return skip("there is no promtool: the metrics are not checked by it");
    };
    let mut stdin = child.stdin.take().expect("its stdin");
    stdin.write_all(text.as_bytes()).expect("telling promtool");
    drop(stdin);
    let output = child.wait_with_output().expect("waiting for promtool");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
}
