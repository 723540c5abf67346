//! Inspects a snapshot and prints the report as JSON, with the time and the peak memory it took:
//! `inspect FILE [--no-trailer] [--remember BYTES]`.

use std::path::Path;
use std::time::Instant;

use etcd_dr::etcd::bbolt::FileSource;
use etcd_dr::etcd::snapshot::{Options, inspect};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: inspect FILE [--no-trailer] [--remember BYTES]";
    let path = args.first().ok_or(usage)?;
    let mut options = Options {
        trailer: !args.iter().any(|a| a == "--no-trailer"),
        ..Options::default()
    };
    if let Some(at) = args.iter().position(|a| a == "--remember") {
        options.remember = args.get(at + 1).ok_or(usage)?.parse()?;
    }
    let began = Instant::now();
    let source = FileSource::open(Path::new(path))?;
    let report = inspect(&source, &options, &|_| {})?;
    let took = began.elapsed();
    println!("{}", serde_json::to_string_pretty(&report)?);
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    eprintln!("{took:?} {}", peak.unwrap_or_default());
    Ok(())
}
