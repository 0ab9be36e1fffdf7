//! libFuzzer throws bytes at the target `case` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("case").run)(data);
});
