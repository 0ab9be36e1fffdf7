//! libFuzzer throws bytes at the target `forge` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("forge").run)(data);
});
