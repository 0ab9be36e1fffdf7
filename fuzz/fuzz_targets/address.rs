//! libFuzzer throws bytes at the target `address` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("address").run)(data);
});
