//! libFuzzer throws bytes at the target `handshake` of `bellwire-fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (bellwire_fuzz::target("handshake").run)(data);
});
