//! libFuzzer throws bytes at the target `body` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("body").run)(data);
});
