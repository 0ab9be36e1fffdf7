//! libFuzzer throws bytes at the target `credential` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("credential").run)(data);
});
