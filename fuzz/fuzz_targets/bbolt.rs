#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    etcd_dr_fuzz::bbolt(data);
    let mut sealed = data.to_vec();
    etcd_dr_fuzz::seal_metas(&mut sealed);
    etcd_dr_fuzz::bbolt(&sealed);
});
