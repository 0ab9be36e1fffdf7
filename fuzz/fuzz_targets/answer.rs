//! libFuzzer throws bytes at the target `answer` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("answer").run)(data);
});
