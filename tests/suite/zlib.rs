//! `flate2` on the shim in `shims/libz-ng-sys`: what it packs it unpacks, and so does what others packed.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// `printf 'maitred' | gzip -9n`, by GNU gzip.
const PACKED_BY_GZIP: [u8; 27] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x4d, 0xcc, 0x2c, 0x29, 0x4a,
    0x4d, 0x01, 0x00, 0xce, 0x8a, 0xfa, 0xc1, 0x07, 0x00, 0x00, 0x00,
];

fn samples() -> Vec<Vec<u8>> {
    // A linear congruential generator (Knuth's MMIX constants): bytes that do not compress.
    let noise = std::iter::successors(Some(1u64), |state| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    });
    let noise = noise
        .map(|state| (state >> 56) as u8)
        .take(1_000_000)
        .collect();
    vec![
        Vec::new(),
        b"maitred".to_vec(),
        b"table for one ".repeat(100_000),
        noise,
    ]
}

#[test]
fn gzip_comes_back_as_it_went_in() {
    for sample in samples() {
        for level in [0, 1, 6, 9] {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&sample).unwrap();
            let packed = encoder.finish().unwrap();
            let mut unpacked = Vec::new();
            GzDecoder::new(packed.as_slice())
                .read_to_end(&mut unpacked)
                .unwrap();
            assert!(
                unpacked == sample,
                "{} bytes at level {level}",
                sample.len()
            );
        }
    }
}

#[test]
fn zlib_comes_back_as_it_went_in_and_is_smaller() {
    let sample = b"table for one ".repeat(100_000);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&sample).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < sample.len() / 100, "{} bytes", packed.len());
    let mut unpacked = Vec::new();
    ZlibDecoder::new(packed.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == sample);
}

#[test]
fn what_gzip_packed_is_unpacked() {
    let mut text = String::new();
    GzDecoder::new(PACKED_BY_GZIP.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "maitred");
}

#[test]
fn damaged_gzip_is_an_error_not_a_crash() {
    for index in 10..PACKED_BY_GZIP.len() {
        let mut damaged = PACKED_BY_GZIP;
        damaged[index] ^= 0x55;
        let mut text = Vec::new();
        assert!(
            GzDecoder::new(damaged.as_slice())
                .read_to_end(&mut text)
                .is_err(),
            "byte {index}"
        );
    }
}
