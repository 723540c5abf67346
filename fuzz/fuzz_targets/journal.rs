#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    etcd_dr_fuzz::journal(data);
    etcd_dr_fuzz::journal(&etcd_dr_fuzz::seal_records(data));
});
