//! libFuzzer throws bytes at the target `link` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("link").run)(data);
});
