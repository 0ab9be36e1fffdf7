//! libFuzzer throws bytes at the target `key` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("key").run)(data);
});
