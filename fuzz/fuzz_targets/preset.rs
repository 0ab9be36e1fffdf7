//! libFuzzer throws bytes at the target `preset` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("preset").run)(data);
});
