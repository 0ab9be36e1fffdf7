//! libFuzzer throws bytes at the target `verify` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("verify").run)(data);
});
